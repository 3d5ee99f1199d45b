"""A prediction on Triton whose model another process takes away."""

from __future__ import annotations

from typing import Any, cast

import numpy as np
import pytest
from rekindle.errors import DependencyUnavailable
from rekindle_inference.adapters.triton.client import UNREACHABLE
from rekindle_inference.adapters.triton.config import ModelOptions
from rekindle_inference.adapters.triton.engine import TritonEngine
from rekindle_inference.adapters.triton.repository import ModelRepository
from rekindle_servicekit.objects import MemoryObjects
from rekindle_servicekit.workers import Cancellation
from suites.engines import make_package


class Client:
    """Triton whose repository somebody else empties just before the first loads."""

    def __init__(self, files: MemoryObjects, robbed: int) -> None:
        self._files = files
        self._robbed = robbed
        self.loads = 0

    def loaded(self) -> list[str]:
        return []

    def load(self, name: str) -> None:
        self.loads += 1
        if self.loads <= self._robbed:
            for key in list(self._files.list(f"{name}/")):
                self._files.delete(key)
        if not list(self._files.list(f"{name}/")):
            raise DependencyUnavailable("finds no model in its repository", reason=UNREACHABLE)

    def unload(self, name: str) -> None: ...


class Batches:
    """Answers with zeros."""

    def send(self, _name: str, images: Any, n_classes: int, _cancellation: Cancellation) -> Any:
        return np.zeros((len(images), n_classes, *images.shape[2:]), np.float32)

    def receive(self, pending: Any, _cancellation: Cancellation) -> Any:
        return pending


def predict(robbed: int) -> int:
    """How often the model was loaded for one prediction."""
    packages, files = MemoryObjects(), MemoryObjects()
    package, _ = make_package(packages)
    client = Client(files, robbed)
    repository = ModelRepository(packages, files, ModelOptions())
    engine = TritonEngine(cast("Any", client), repository, cast("Any", Batches()), installation="here")
    images = np.zeros((2, *package.manifest.input_shape), np.float32)
    assert not engine.predict(package, images, Cancellation()).any()
    return client.loads


def test_a_model_whose_files_another_process_removes_is_written_again() -> None:
    """Two services share a Triton, and one has just unloaded what the other begins to need."""
    assert 2 == predict(robbed=1)


def test_a_repository_that_stays_empty_is_told() -> None:
    """After a few tries."""
    with pytest.raises(DependencyUnavailable, match="finds no model"):
        predict(robbed=9)
