"""The embedded engine: ONNX Runtime in this process, on its processors."""

from __future__ import annotations

import hashlib
import logging
import threading
from collections import OrderedDict
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray
from rekindle.errors import IntegrityError, InvalidInput
from rekindle_imaging.package import needed_bytes
from rekindle_servicekit.layout import PackageKeys
from rekindle_servicekit.objects import Objects
from rekindle_servicekit.workers import Cancellation

from rekindle_inference.adapters.onnx_file import check_onnx
from rekindle_inference.domain.records import ProjectId
from rekindle_inference.ports import Package

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class _Loaded:
    session: Any
    memory_bytes: int


class OnnxRuntimeEngine:
    """Keeps sessions ready up to `memory_bytes`, the least recently used one leaves first.

    One thread per operator and a fixed order of operators by default, so that equal input gives equal bits on
    equal processors.
    """

    def __init__(
        self,
        objects: Objects,
        *,
        threads: int = 1,
        memory_bytes: int = 4 * 1024**3,
        batch_size: int = 16,
    ) -> None:
        self._objects = objects
        self._threads = threads
        self._memory_bytes = memory_bytes
        self._batch_size = batch_size
        self._sessions: OrderedDict[str, _Loaded] = OrderedDict()
        self._lock = threading.Lock()
        #: Two calls for one new package load it once.
        self._loading: dict[str, threading.Lock] = {}

    @property
    def batch_size(self) -> int:
        return self._batch_size

    def check(self, package: Package, model: bytes) -> None:
        """InvalidInput where the file is not self-contained, breaks the contract, or does not load."""
        check_onnx(model, package.manifest)
        self._keep(package, self._session(model), len(model))

    def load(self, package: Package) -> None:
        self._ready(package)

    @contextmanager
    def hold(self, package: Package) -> Generator[None]:
        """A session lives as long as somebody runs it, so nothing needs to be held."""
        yield

    def predict(self, package: Package, images: NDArray[np.float32], cancellation: Cancellation) -> NDArray[np.float32]:
        session = self._ready(package)
        cancellation.raise_if_set()
        try:
            logits = np.asarray(session.run(["logits"], {"image": np.ascontiguousarray(images)})[0])
        except Exception as error:  # ONNX Runtime's errors have no common base of their own
            raise InvalidInput(
                f"package {package.digest} fails on a batch of shape {images.shape}", reason="MODEL_FAILED"
            ) from error
        manifest = package.manifest
        expected = (len(images), manifest.n_classes, *manifest.input_shape[1:])
        if logits.shape != expected or logits.dtype != np.float32:
            raise InvalidInput(
                f"package {package.digest} answers with shape {logits.shape} instead of {expected}",
                reason="MODEL_FAILED",
            )
        return logits

    def keep(self, project_id: ProjectId, packages: Sequence[Package]) -> None:
        """Loading takes moments here: what was used least recently leaves, whatever it is."""

    def forget(self, package: Package) -> None:
        with self._lock:
            self._sessions.pop(package.digest, None)

    def close(self) -> None:
        with self._lock:
            self._sessions.clear()

    def loaded(self) -> tuple[str, ...]:
        """Digests of the packages that are ready, the least recently used one first."""
        with self._lock:
            return tuple(self._sessions)

    def _ready(self, package: Package) -> Any:
        with self._lock:
            known = self._sessions.get(package.digest)
            if known is not None:
                self._sessions.move_to_end(package.digest)
                return known.session
            loading = self._loading.setdefault(package.digest, threading.Lock())
        with loading:
            with self._lock:
                known = self._sessions.get(package.digest)
            if known is not None:
                return known.session
            session, model_bytes = self._load(package)
            self._keep(package, session, model_bytes)
            return session

    def _load(self, package: Package) -> tuple[Any, int]:
        model = self._objects.get(PackageKeys(package.digest).model)
        if hashlib.sha256(model).hexdigest() != package.manifest.model_digest:
            raise IntegrityError(
                f"the stored model of package {package.digest} is damaged: upload the package again",
                reason="DIGEST_MISMATCH",
            )
        _log.info("loading package %s", package.digest, extra={"action": "engine.load"})
        return self._session(model), len(model)

    def _keep(self, package: Package, session: Any, model_bytes: int) -> None:
        with self._lock:
            self._sessions[package.digest] = _Loaded(session, needed_bytes(package.manifest, model_bytes))
            self._sessions.move_to_end(package.digest)
            self._loading.pop(package.digest, None)
            # What was loaded last stays, also where it alone exceeds the limit: it is about to be used.
            while len(self._sessions) > 1 and self._used_bytes() > self._memory_bytes:
                dropped, _ = self._sessions.popitem(last=False)
                _log.info("unloading package %s", dropped, extra={"action": "engine.unload"})

    def _used_bytes(self) -> int:
        return sum(loaded.memory_bytes for loaded in self._sessions.values())

    def _session(self, model: bytes) -> Any:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = self._threads
        options.inter_op_num_threads = 1
        options.execution_mode = onnxruntime.ExecutionMode.ORT_SEQUENTIAL
        options.use_deterministic_compute = True
        options.log_severity_level = 4
        try:
            return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
        except Exception as error:  # ONNX Runtime's errors have no common base of their own
            raise InvalidInput(
                "ONNX Runtime cannot load the model: check that it was exported completely",
                reason="MODEL_NOT_LOADABLE",
            ) from error
