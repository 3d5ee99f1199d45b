"""The engine that runs packages on NVIDIA Triton: one Triton model per version, loaded and unloaded explicitly."""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Generator, Sequence
from contextlib import contextmanager

import grpc
import numpy as np
from numpy.typing import NDArray
from rekindle.errors import DependencyUnavailable, InvalidInput, RekindleError
from rekindle_imaging.package import needed_bytes
from rekindle_servicekit.workers import Cancellation

from rekindle_inference.adapters.onnx_file import check_onnx
from rekindle_inference.adapters.triton.batches import Batches, Pending
from rekindle_inference.adapters.triton.client import TIMEOUT, UNREACHABLE, ModelGone, Refused, TritonClient
from rekindle_inference.adapters.triton.loads import Loads
from rekindle_inference.adapters.triton.names import model_name, own_name
from rekindle_inference.adapters.triton.repository import ModelRepository
from rekindle_inference.adapters.triton.residents import Residents
from rekindle_inference.domain.records import ProjectId
from rekindle_inference.ports import Package

_log = logging.getLogger(__name__)

#: Times that a request is sent where its model turns out to be gone, or the server to have restarted.
_TRIES = 3
#: After a connection was cut.
_RECONNECT_S = 0.3


class TritonEngine:
    """Serves packages through Triton, which may be restarted, or lose a model, at any time.

    A version's name stands for one graph for ever, so that loading it again, by whomever, changes no result.
    """

    def __init__(
        self,
        client: TritonClient,
        repository: ModelRepository,
        batches: Batches,
        *,
        installation: str,
        max_batch: int = 16,
        in_flight: int = 4,
        memory_bytes: int = 4 * 1024**3,
        load_wait_s: float = 30.0,
    ) -> None:
        """`in_flight` batches of `max_batch` slices travel at a time for each volume.

        `memory_bytes`: models are kept loaded up to this. `load_wait_s`: how long a prediction waits for its model.
        """
        self._client = client
        self._repository = repository
        self._batches = batches
        self._installation = installation
        self._max_batch = max_batch
        self._in_flight = in_flight
        self._load_wait_s = load_wait_s
        self._residents = Residents(memory_bytes)
        self._loads = Loads()
        self._adopted = False
        self._adopting = threading.Lock()

    @property
    def batch_size(self) -> int:
        return self._max_batch * self._in_flight

    def prepare(self) -> None:
        """Let Triton find its repository when it starts; tried again with each load where it cannot be done now."""
        try:
            self._repository.prepare()
        except RekindleError as error:
            _log.warning("the model repository is not there yet: %s", error, extra={"action": "engine.load"})

    def check(self, package: Package, model: bytes) -> None:
        check_onnx(model, package.manifest)
        self._load(package, model=model, wait_s=None)

    def load(self, package: Package) -> None:
        self._load(package, wait_s=None)

    @contextmanager
    def hold(self, package: Package) -> Generator[None]:
        name = model_name(self._installation, package).text
        self._residents.hold(name)
        try:
            yield
        finally:
            self._residents.release(name)
            self._unload_surplus()

    def predict(self, package: Package, images: NDArray[np.float32], cancellation: Cancellation) -> NDArray[np.float32]:
        cancellation.raise_if_set()
        name = model_name(self._installation, package).text
        if images.shape[1:] != package.manifest.input_shape:
            raise InvalidInput(
                f"package {package.digest} takes no batch of shape {images.shape}", reason="MODEL_FAILED"
            )
        with self.hold(package):
            for tried in range(1, _TRIES + 1):
                try:
                    # Another process that unloads the model just now removes its files too: they are written again.
                    self._load(package, wait_s=self._load_wait_s, cancellation=cancellation)
                    return self._predict(name, package, images, cancellation)
                except ModelGone:
                    # Triton has restarted, or another process has unloaded the model.
                    self._residents.remove(name)
                    self._batches.renew()
                except Refused as refused:
                    # A model instance that died is started anew by Triton.
                    if refused.code is not grpc.StatusCode.INTERNAL or tried == _TRIES:
                        raise _failed(package, images, refused) from refused
                except DependencyUnavailable as away:
                    if away.reason != UNREACHABLE or tried == _TRIES:
                        raise
                    cancellation.wait(_RECONNECT_S)
        raise DependencyUnavailable(
            "the model server (Triton) loses the model again and again: try again later",
            reason=UNREACHABLE,
            retry_after_s=1.0,
        )

    def keep(self, project_id: ProjectId, packages: Sequence[Package]) -> None:
        self._adopt()
        self._residents.keep(project_id, [model_name(self._installation, package).text for package in packages])
        self._unload_surplus()

    def forget(self, package: Package) -> None:
        self._unload(model_name(self._installation, package).text)

    def close(self) -> None:
        self._batches.close()
        self._client.close()

    def loaded(self) -> tuple[str, ...]:
        """Names of the models that are ready, the least recently used one first."""
        return self._residents.names()

    def _predict(
        self, name: str, package: Package, images: NDArray[np.float32], cancellation: Cancellation
    ) -> NDArray[np.float32]:
        """Several batches under way at a time, their answers in order."""
        starts = range(0, len(images), self._max_batch)
        waiting: deque[Pending] = deque()
        parts: list[NDArray[np.float32]] = []
        n_classes = package.manifest.n_classes
        try:
            for first in starts:
                if len(waiting) == self._in_flight:
                    parts.append(self._batches.receive(waiting.popleft(), cancellation))
                batch = images[first : first + self._max_batch]
                waiting.append(self._batches.send(name, batch, n_classes, cancellation))
            while waiting:
                parts.append(self._batches.receive(waiting.popleft(), cancellation))
        finally:
            for pending in waiting:
                self._batches.drop(pending)
        return parts[0] if len(parts) == 1 else np.concatenate(parts)

    def _load(
        self,
        package: Package,
        *,
        wait_s: float | None,
        model: bytes | None = None,
        cancellation: Cancellation | None = None,
    ) -> None:
        """Ready when it returns; a load goes on in the background where it takes longer than `wait_s`."""
        name = model_name(self._installation, package)
        if model is None and name.text in self._residents:
            return
        self.prepare()
        self._adopt()

        def load() -> None:
            self._repository.write(name.text, package, model)
            self._client.load(name.text)
            size = len(model) if model is not None else self._repository.model_bytes(name.text)
            self._residents.add(name.text, name.project_id, needed_bytes(package.manifest, size))
            _log.info("model %s is loaded", name.text, extra={"action": "engine.load"})

        try:
            self._loads.run(name.text, load, wait_s, cancellation)
        except Exception as error:
            # Triton may still be reading where it has only taken too long.
            if not (isinstance(error, DependencyUnavailable) and error.reason == TIMEOUT):
                self._repository_forgets(name.text)
            raise
        self._unload_surplus()

    def _repository_forgets(self, name: str) -> None:
        """Nothing of a model that did not load is left, unless its load is still going on."""
        if name in self._residents or self._loads.is_running(name):
            return
        try:
            self._repository.remove(name)
        except RekindleError as error:
            _log.warning("files of model %s are left: %s", name, error, extra={"action": "engine.unload"})

    def _unload_surplus(self) -> None:
        for name in self._residents.take_surplus():
            self._unload(name)

    def _unload(self, name: str) -> None:
        """What cannot be unloaded now is found again at the next start."""
        self._residents.remove(name)
        try:
            self._client.unload(name)
            self._repository.remove(name)
            _log.info("model %s is unloaded", name, extra={"action": "engine.unload"})
        except (RekindleError, Refused, ModelGone) as error:
            _log.warning("model %s is not unloaded: %s", name, error, extra={"action": "engine.unload"})

    def _adopt(self) -> None:
        """Once: take over what an earlier process of this installation has loaded."""
        with self._adopting:
            if self._adopted:
                return
            for text in self._loaded_in_triton():
                name = own_name(self._installation, text)
                if name is not None and text not in self._residents:
                    self._residents.add(text, name.project_id, self._memory_of(text))
            self._adopted = True

    def _loaded_in_triton(self) -> list[str]:
        try:
            return self._client.loaded()
        except (Refused, ModelGone) as error:
            _log.error("what listens at Triton's address answers %s", error, extra={"action": "engine.load"})
            raise DependencyUnavailable(
                "what listens at the model server's address does not answer as Triton does: check triton_address, "
                "which is that of its gRPC service",
                reason=UNREACHABLE,
                retry_after_s=5.0,
            ) from error

    def _memory_of(self, name: str) -> int:
        try:
            return int(self._client.parameters(name).get("rekindle_memory_bytes", "0"))
        except (ModelGone, Refused, ValueError):
            return 0


def _failed(package: Package, images: NDArray[np.float32], refused: Refused) -> Exception:
    _log.warning("package %s fails: %s", package.digest, refused, extra={"action": "engine.predict"})
    if refused.code in (grpc.StatusCode.RESOURCE_EXHAUSTED, grpc.StatusCode.CANCELLED, grpc.StatusCode.ABORTED):
        return DependencyUnavailable(
            "the model server (Triton) gave the batch up: try again later",
            reason=UNREACHABLE,
            retry_after_s=1.0,
        )
    return InvalidInput(f"package {package.digest} fails on a batch of shape {images.shape}", reason="MODEL_FAILED")
