"""Where objects lie in the store, for those who write and those who read them.

Every key is made of server-made ids and SHA-256 digests, never of a client's text. docs/architecture.md shows the
whole layout.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

#: Folders, to list what lies below them.
ORIGINALS: Final = "volumes/"
CANONICALS: Final = "canonical/"
PACKAGES: Final = "packages/"
WEIGHTS: Final = "weights/"
UPLOADS: Final = "uploads/"
RUNS: Final = "runs/"

_CHECKPOINT: Final = re.compile(r"runs/[^/]+/(?P<attempt>\d+)/checkpoint/")
_STATE: Final = re.compile(r"/(?P<attempt>\d+)/checkpoint/(?P<step>\d+)/state\.json$")


def original(digest: str) -> str:
    """Bytes of a volume as they were sent."""
    return f"{ORIGINALS}{digest}"


def canonical(digest: str) -> str:
    """A volume in canonical form."""
    return f"{CANONICALS}{digest}"


def weights(digest: str) -> str:
    """Weights of a network, safetensors."""
    return f"{WEIGHTS}{digest}"


@dataclass(frozen=True, slots=True)
class PackageKeys:
    """Objects of one model package."""

    digest: str

    @property
    def manifest(self) -> str:
        """Manifest, written last: with it the package is complete."""
        return f"{PACKAGES}{self.digest}/manifest.json"

    @property
    def model(self) -> str:
        """ONNX graph."""
        return f"{PACKAGES}{self.digest}/model.onnx"

    @property
    def both(self) -> tuple[str, str]:
        """Manifest and graph."""
        return self.manifest, self.model


@dataclass(frozen=True, slots=True)
class UploadKeys:
    """Objects of an upload that is not finalised yet."""

    upload_id: str

    @property
    def folder(self) -> str:
        """Prefix of all its objects."""
        return f"{UPLOADS}{self.upload_id}/"

    @property
    def whole(self) -> str:
        """Bytes that were put to a presigned address."""
        return f"{self.folder}whole"

    def part(self, offset: int, sha256: str) -> str:
        """One piece, by its offset in bytes and the beginning of its digest."""
        return f"{self.folder}{offset:012d}-{sha256[:16]}"


@dataclass(frozen=True, slots=True)
class RunKeys:
    """Objects of one training run."""

    run_id: str

    @property
    def folder(self) -> str:
        """Prefix of all its objects."""
        return f"{RUNS}{self.run_id}/"

    @property
    def spec(self) -> str:
        """What the run is to do."""
        return f"{self.folder}spec.json"

    def attempt(self, number: int) -> AttemptKeys:
        """Objects of one of its attempts."""
        return AttemptKeys(self.run_id, number)


@dataclass(frozen=True, slots=True)
class AttemptKeys:
    """Objects that one attempt of a run writes."""

    run_id: str
    number: int

    @property
    def folder(self) -> str:
        """Prefix of all its objects."""
        return f"{RUNS}{self.run_id}/{self.number}/"

    @property
    def result(self) -> str:
        """Result, written last."""
        return f"{self.folder}result.json"

    @property
    def failure(self) -> str:
        """Why the attempt failed."""
        return f"{self.folder}failure.json"

    @property
    def metrics(self) -> str:
        """Prefix of its metrics."""
        return f"{self.folder}metrics/"

    def metric(self, number: int) -> str:
        """One metric, from number 1 without gaps."""
        return f"{self.metrics}{number:06d}.json"

    @property
    def checkpoints(self) -> str:
        """Prefix of its checkpoints."""
        return f"{self.folder}checkpoint/"

    def checkpoint(self, step: int) -> CheckpointKeys:
        """Objects of the checkpoint at one step."""
        return CheckpointKeys(f"{self.checkpoints}{step:08d}/")


@dataclass(frozen=True, slots=True)
class CheckpointKeys:
    """Objects of one checkpoint."""

    folder: str

    @property
    def weights(self) -> str:
        """Tensors of network and optimiser, safetensors; written first."""
        return f"{self.folder}weights.safetensors"

    @property
    def state(self) -> str:
        """Progress; with it the checkpoint is complete."""
        return f"{self.folder}state.json"


def checkpoint_attempt(key: str) -> int | None:
    """The attempt whose checkpoint the object belongs to, None where it belongs to none."""
    match = _CHECKPOINT.match(key)
    return None if match is None else int(match["attempt"])


def checkpoint_state(key: str) -> tuple[int, int] | None:
    """(step, attempt) of a checkpoint's state, None for another object."""
    match = _STATE.search(key)
    return None if match is None else (int(match["step"]), int(match["attempt"]))


def run_id_of(key: str) -> str:
    """The run that an object below `RUNS` belongs to."""
    return key.split("/")[1]
