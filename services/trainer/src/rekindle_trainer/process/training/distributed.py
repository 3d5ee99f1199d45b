"""The processes of one attempt, of which each trains on its part of every batch: who they are and how they agree."""

from __future__ import annotations

import hashlib
import logging
import os
import sys
import time
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager, suppress
from datetime import timedelta
from typing import Final, NoReturn

import torch
import torch.distributed as dist
from torch.distributed.rendezvous import rendezvous

_log = logging.getLogger(__name__)
_POLL_S: Final = 0.5
#: Keys of the store by which the processes find each other.
_DONE, _SEEN, _STOP = "done", "seen", "stop"
#: How long the first process lets the others see that all is done.
_PARTING_S: Final = 30.0
#: Gradients travel together in pieces of about this size.
_BUCKET_BYTES: Final = 32 * 1024 * 1024


class RankLost(Exception):
    """The processes of an attempt do not meet any more; `reason` is UPPER_SNAKE, the message is for people."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason
        self.message = message


class RanksDisagree(Exception):
    """Processes that must hold the same weights do not."""


class Ranks:
    """This process among those of its attempt. By itself it is the only one, and nothing here does anything then.

    Every method is a meeting: all processes call the same ones in the same order. RankLost where one is gone, or has
    not come within the time limit.
    """

    rank: int = 0
    size: int = 1

    @property
    def is_first(self) -> bool:
        """Whether this is the process that writes: metrics, checkpoints, weights, packages, the result."""
        return self.rank == 0

    def part(self, total: int) -> slice:
        """Which of `total` things are this process's; in the order of the ranks the parts are the whole."""
        return slice(total * self.rank // self.size, total * (self.rank + 1) // self.size)

    def any(self, flag: bool) -> bool:
        """Whether it is so for any of them."""
        return flag

    def sum(self, values: torch.Tensor) -> torch.Tensor:
        """`values`, added up over the processes in place."""
        return values

    def gather(self, values: torch.Tensor) -> list[torch.Tensor]:
        """The `values` of all, which have one shape, by rank."""
        return [values]

    def broadcast(self, data: bytes | None) -> bytes | None:
        """What the first one has."""
        return data

    def meet(self) -> None:
        """Wait for all."""

    def require_same(self, digest: str) -> None:
        """RanksDisagree where another one has another digest."""

    def stop_waiting(self, has_stopped: Callable[[], bool]) -> bool:
        """On all but the first one: wait until that one is done or stops; whether it is done."""
        return True

    def is_told_to_stop(self, flag: bool) -> bool:
        """`flag`, or whether another one was told to stop while it waited for this one."""
        return flag

    def finish(self) -> None:
        """On the first one: tell the others that all is done."""

    def close(self) -> None:
        """Leave."""

    def __deepcopy__(self, memo: object) -> Ranks:
        return self

    def sum_gradients(self, network: torch.nn.Module) -> None:
        """Add up the gradients of all parameters over the processes."""
        if self.size == 1:
            return
        bucket: list[torch.Tensor] = []
        filled = 0
        for gradient in (p.grad for p in network.parameters() if p.grad is not None):
            bucket.append(gradient)
            filled += gradient.numel() * gradient.element_size()
            if filled >= _BUCKET_BYTES:
                self._sum_bucket(bucket)
                bucket, filled = [], 0
        if bucket:
            self._sum_bucket(bucket)

    def _sum_bucket(self, bucket: list[torch.Tensor]) -> None:
        flat = self.sum(torch.cat([gradient.flatten() for gradient in bucket]))
        for gradient, part in zip(bucket, flat.split([g.numel() for g in bucket]), strict=True):
            # Into each one's own memory layout.
            gradient.copy_(part.view(gradient.shape))


ALONE: Final = Ranks()


class TorchRanks(Ranks):
    """One of several processes that torchrun has started, on one machine or on several."""

    def __init__(self, device: torch.device, timeout_s: float, environment: Mapping[str, str] = os.environ) -> None:
        """Meet the others; RankLost where they do not come."""
        self.rank, self.size = int(environment["RANK"]), int(environment["WORLD_SIZE"])
        self._device = device
        self._timeout_s = timeout_s
        timeout = timedelta(seconds=timeout_s)
        with self._collective("meeting for the first time"):
            store, rank, size = next(iter(rendezvous("env://", timeout=timeout)))
            store.set_timeout(timeout)
            self._store = dist.PrefixStore("training", store)
            backend = "nccl" if device.type == "cuda" else "gloo"
            dist.init_process_group(backend, store=store, rank=rank, world_size=size, timeout=timeout)
            dist.barrier()

    def any(self, flag: bool) -> bool:
        return bool(self.sum(torch.tensor([int(flag)], device=self._device)).item())

    def sum(self, values: torch.Tensor) -> torch.Tensor:
        with self._collective("adding up"):
            dist.all_reduce(values)
        return values

    def gather(self, values: torch.Tensor) -> list[torch.Tensor]:
        values = values.contiguous()
        parts = [torch.empty_like(values) for _ in range(self.size)]
        with self._collective("gathering"):
            dist.all_gather(parts, values)
        return parts

    def broadcast(self, data: bytes | None) -> bytes | None:
        length = torch.tensor([-1 if data is None else len(data)], device=self._device)
        with self._collective("handing on"):
            dist.broadcast(length, 0)
            if (count := int(length.item())) < 0:
                return None
            content = torch.empty(count, dtype=torch.uint8, device=self._device)
            if self.is_first and data:
                content.copy_(torch.frombuffer(bytearray(data), dtype=torch.uint8))
            dist.broadcast(content, 0)
        return content.cpu().numpy().tobytes()

    def meet(self) -> None:
        with self._collective("waiting for each other"):
            dist.barrier()

    def require_same(self, digest: str) -> None:
        own = hashlib.sha256(digest.encode()).digest()[:8]
        word = torch.tensor([int.from_bytes(own, "little", signed=True)], device=self._device)
        if len({int(other.item()) for other in self.gather(word)}) > 1:
            raise RanksDisagree(f"the {self.size} processes of the run do not hold the same weights")

    def stop_waiting(self, has_stopped: Callable[[], bool]) -> bool:
        with self._collective("waiting for the first process"):
            while not self._store.check([_DONE]):
                if has_stopped():
                    self._store.set(_STOP, "1")
                    return False
                time.sleep(_POLL_S)
            self._store.add(_SEEN, 1)
        return True

    def is_told_to_stop(self, flag: bool) -> bool:
        with self._collective("looking for the others"):
            return flag or self._store.check([_STOP])

    def finish(self) -> None:
        # The result is stored: whoever is gone by now changes nothing.
        with suppress(RankLost), self._collective("parting"):
            self._store.set(_DONE, "1")
            # The store may live in this process, so it leaves last.
            deadline = time.monotonic() + _PARTING_S
            while self._store.add(_SEEN, 0) < self.size - 1 and time.monotonic() < deadline:
                time.sleep(_POLL_S)

    def close(self) -> None:
        with suppress(Exception):
            dist.destroy_process_group()

    @contextmanager
    def _collective(self, what: str) -> Generator[None]:
        began = time.monotonic()
        try:
            yield
        except RuntimeError as error:  # what torch raises for peers that are gone and for time limits
            _log.warning("%s: %s", what, error)
            if time.monotonic() - began >= 0.95 * self._timeout_s:
                raise RankLost(
                    "COLLECTIVE_TIMEOUT",
                    f"the {self.size} processes of the run did not meet within {self._timeout_s:g} s ({what}): see "
                    "their logs, or raise kubernetes_collective_timeout_s",
                ) from None
            raise RankLost(
                "RANK_LOST", f"one of the {self.size} processes of the run ended or cannot be reached ({what})"
            ) from None


def leave(code: int) -> NoReturn:
    """End this process with `code` as it is: what was written is flushed, and nothing is torn down.

    Threads of torch that are still about while the interpreter ends would abort it, for another code than its own.
    """
    logging.shutdown()
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError):
            stream.flush()
    os._exit(code)


def several(environment: Mapping[str, str] = os.environ) -> bool:
    """Whether torchrun has started this process as one of several."""
    return int(environment.get("WORLD_SIZE") or 1) > 1


def local_place(environment: Mapping[str, str] = os.environ) -> tuple[int, int]:
    """(Number of this process on its machine, from 0, and how many there are on it.)"""
    return int(environment.get("LOCAL_RANK") or 0), int(environment.get("LOCAL_WORLD_SIZE") or 1)
