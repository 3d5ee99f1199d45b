"""What serves a network without an export: torch's eager mode, as an engine of the inference service."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from rekindle_inference.domain.records import ProjectId
from rekindle_inference.ports import Package
from rekindle_servicekit.workers import Cancellation
from rekindle_trainer.domain.presets import PRESETS
from rekindle_trainer.process.networks.transunet import TransUNet


class TorchEngine:
    """One network, in memory for good."""

    #: Number of threads, the same as the embedded engine has.
    batch_size = 16

    def __init__(self, weights: Path, preset: str, classes: int, *, threads: int) -> None:
        torch.set_num_threads(threads)
        self._network = TransUNet(PRESETS[preset].transunet, classes)
        self._network.load_state_dict(torch.load(weights, weights_only=True))
        self._network.eval()

    def check(self, package: Package, model: bytes) -> None:
        """The network is not the package's file, so there is nothing to check."""

    def predict(self, package: Package, images: NDArray[np.float32], cancellation: Cancellation) -> NDArray[np.float32]:
        cancellation.raise_if_set()
        with torch.inference_mode():
            return self._network(torch.from_numpy(np.ascontiguousarray(images))).numpy()

    def load(self, package: Package) -> None:
        """The network is there already."""

    @contextmanager
    def hold(self, package: Package) -> Generator[None]:
        yield

    def keep(self, project_id: ProjectId, packages: Sequence[Package]) -> None:
        """The network stays."""

    def forget(self, package: Package) -> None:
        """The network stays."""

    def close(self) -> None:
        """Nothing is held beyond the process."""
