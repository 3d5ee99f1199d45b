"""The engine that the settings ask for."""

from __future__ import annotations

from pathlib import Path

from rekindle.errors import InvalidInput
from rekindle_servicekit.objects import DirectoryObjects, Objects, PrefixedObjects

from rekindle_inference.adapters.onnxruntime import OnnxRuntimeEngine
from rekindle_inference.ports import Engine
from rekindle_inference.settings import Settings


def open_engine(settings: Settings, objects: Objects, store: Objects) -> Engine:
    """Triton where it has an address, or else ONNX Runtime in this process.

    `objects` holds the packages; `store` is the whole store, where `objects` may be one installation's part of it.
    """
    if settings.triton_address:
        # Imported only where it is used: the library is an extra.
        try:
            from rekindle_inference.adapters.triton.open import open_triton
        except ImportError:
            raise InvalidInput(
                "triton_address is set and the library to reach it is missing: install rekindle-inference[triton]",
                reason="INVALID_SETTING",
            ) from None
        return open_triton(settings, objects, _repository(settings, store))
    return OnnxRuntimeEngine(
        objects,
        threads=settings.engine_threads,
        memory_bytes=settings.engine_memory_bytes,
        batch_size=settings.engine_batch,
    )


def _repository(settings: Settings, store: Objects) -> Objects:
    """Where Triton looks for models. The names in it begin with the installation's, so its prefix is not needed."""
    if settings.triton_repository:
        return DirectoryObjects(Path(settings.triton_repository))
    return PrefixedObjects(store, "triton")
