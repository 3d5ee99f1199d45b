"""Weights and checkpoints as safetensors and JSON; nothing here can hold code, and nothing random needs saving."""

from __future__ import annotations

import hashlib
import json
from contextlib import suppress
from dataclasses import asdict, dataclass, field, fields
from typing import Any

import safetensors
import safetensors.torch
import torch
from rekindle.errors import NotFound
from rekindle_servicekit import layout
from rekindle_servicekit.layout import RunKeys
from rekindle_servicekit.objects import Objects
from torch import nn

from rekindle_trainer.domain.spec import compact_json
from rekindle_trainer.process.training.distributed import ALONE, Ranks

_MODEL = "model."
_OPTIMIZER = "optimizer."


@dataclass(kw_only=True)
class Progress:
    """Where a run is; with the weights, all that a resumed run needs."""

    #: Index of the phase and steps done in it.
    phase: int = 0
    phase_step: int = 0
    #: Steps done in all phases.
    step: int = 0
    train_seconds: float = 0.0
    epochs: int = 0
    last_loss: float | None = None
    #: Digest of the weights at the end of each finished phase, by its name.
    phase_weights: dict[str, str] = field(default_factory=dict)


def pack_weights(network: nn.Module, description: dict[str, Any]) -> bytes:
    """Deterministic safetensors of the network's state; `description` travels in the header."""
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in network.state_dict().items()}
    # One key only: the order of several would not be stable.
    return safetensors.torch.save(tensors, metadata={"rekindle": compact_json(description).decode()})


def unpack_weights(data: bytes) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    """State and description; ValueError where `data` is not a weights file of Rekindle."""
    try:
        tensors = safetensors.torch.load(data)
        length = int.from_bytes(data[:8], "little")
        header = json.loads(data[8 : 8 + length])
        return tensors, json.loads(header["__metadata__"]["rekindle"])
    except (safetensors.SafetensorError, KeyError, ValueError) as error:
        raise ValueError(f"not a weights file: {error}") from None


def store_weights(objects: Objects, network: nn.Module, description: dict[str, Any], ranks: Ranks = ALONE) -> str:
    """Store under ``weights/<digest>`` and return the digest; RanksDisagree where processes have other weights."""
    data = pack_weights(network, description)
    digest = hashlib.sha256(data).hexdigest()
    ranks.require_same(digest)
    if ranks.is_first:
        objects.put(layout.weights(digest), data)
    return digest


class Checkpoints:
    """Checkpoints of one run: this attempt writes its own, and resumes from any attempt's newest complete one."""

    def __init__(self, objects: Objects, run_id: str, attempt: int, *, keep: int = 2) -> None:
        self._objects = objects
        self._run = RunKeys(run_id)
        self._own = self._run.attempt(attempt)
        self._keep = keep

    def save(self, network: nn.Module, optimizer: torch.optim.Optimizer | None, progress: Progress) -> None:
        """Write weights, then the state that makes them count; drop this attempt's older checkpoints."""
        keys = self._own.checkpoint(progress.step)
        if self._objects.exists(keys.state):
            return
        data = safetensors.torch.save(_tensors(network, optimizer))
        digest = hashlib.sha256(data).hexdigest()
        if self._objects.exists(keys.weights):
            # An attempt that died between the two objects of this checkpoint.
            self._objects.delete(keys.weights)
        self._objects.put(keys.weights, data)
        self._objects.put(keys.state, compact_json({**asdict(progress), "sha256": digest}))
        self._prune()

    def newest(self) -> tuple[Progress, dict[str, torch.Tensor]] | None:
        """The most advanced complete and undamaged checkpoint of any attempt; None where there is none."""
        found = []
        for key in self._objects.list(self._run.folder):
            place = layout.checkpoint_state(key)
            if place is not None:
                found.append(place)
        for step, attempt in sorted(found, reverse=True):
            keys = self._run.attempt(attempt).checkpoint(step)
            # Another attempt that still runs may prune what has just been listed.
            with suppress(NotFound):
                state = json.loads(self._objects.get(keys.state))
                data = self._objects.get(keys.weights)
                if hashlib.sha256(data).hexdigest() == state["sha256"]:
                    names = {f.name for f in fields(Progress)}
                    progress = Progress(**{name: value for name, value in state.items() if name in names})
                    return progress, safetensors.torch.load(data)
        return None

    def _prune(self) -> None:
        places = filter(None, map(layout.checkpoint_state, self._objects.list(self._own.checkpoints)))
        for step, _ in sorted(places)[: -self._keep]:
            keys = self._own.checkpoint(step)
            self._objects.delete(keys.state)  # first: a state without weights would look complete
            self._objects.delete(keys.weights)


def read_for_all(checkpoints: Checkpoints, ranks: Ranks) -> tuple[Progress, dict[str, torch.Tensor]] | None:
    """The newest checkpoint as the first process finds it, on all: others might find another one by then."""
    found = checkpoints.newest() if ranks.is_first else None
    if ranks.size == 1:
        return found
    state = ranks.broadcast(None if found is None else compact_json(asdict(found[0])))
    data = ranks.broadcast(None if found is None else safetensors.torch.save(found[1]))
    return None if state is None or data is None else (Progress(**json.loads(state)), safetensors.torch.load(data))


def restore_network(network: nn.Module, tensors: dict[str, torch.Tensor]) -> None:
    """Fill the network from a checkpoint's tensors."""
    network.load_state_dict({k.removeprefix(_MODEL): v for k, v in tensors.items() if k.startswith(_MODEL)})


def restore_optimizer(optimizer: torch.optim.Optimizer, tensors: dict[str, torch.Tensor]) -> None:
    """Fill the optimiser from a checkpoint's tensors, in each parameter's own memory layout."""
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    for key, value in tensors.items():
        if not key.startswith(_OPTIMIZER):
            continue
        number, name = key.removeprefix(_OPTIMIZER).split(".")
        parameter = parameters[int(number)]
        # The layout matters: vectorised arithmetic over another one can differ in the last bit.
        own = torch.empty_like(parameter).copy_(value) if value.shape == parameter.shape else value.clone()
        optimizer.state[parameter][name] = own


def _tensors(network: nn.Module, optimizer: torch.optim.Optimizer | None) -> dict[str, torch.Tensor]:
    tensors = {_MODEL + name: value for name, value in network.state_dict().items()}
    if optimizer is not None:
        for number, values in optimizer.state_dict()["state"].items():
            for name, value in values.items():
                if isinstance(value, torch.Tensor):
                    tensors[f"{_OPTIMIZER}{number}.{name}"] = value
    return {name: value.detach().cpu().contiguous() for name, value in tensors.items()}
