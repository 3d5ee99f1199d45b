"""A simulated annotator: how many minutes it would cost to turn a coarse label into the corrected one."""

import hashlib
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import ClassVar

import numpy as np
from rekindle_imaging.contours import added_path_length_mm
from rekindle_imaging.masks import removed_components, voxels_changed
from rekindle_imaging.volume import Volume

ORGANS: Mapping[str, int] = MappingProxyType({"liver": 1, "spleen": 2})


@dataclass(frozen=True, kw_only=True)
class TimeModel:
    """Simulated minutes of correcting one volume.

        seconds = noise * (reading_s_per_slice * slices
                           + sum over organs (drawing_s_per_mm * added path length
                                              + painting_s_per_cm2 * changed area
                                              + removal_s_per_component * components to remove))

    Added path length is the length of the true in-plane contour that lies farther than `tolerance_mm`
    from the coarse label's contour in the same slice, so it has to be redrawn (Vaassen et al. 2020,
    Phys Imaging Radiat Oncol 13:1-6, who found that it follows measured correction time better than Dice
    does). Without a coarse label the whole contour is drawn. Changed area is that of the voxels that
    differ, summed over the slices. `noise` is lognormal with mean 1 and depends on annotator seed and case
    alone, so a case is as slow or quick under every model version.

    The constants are round and fixed. They were chosen once, on the truth labels of public CT (68 slices
    and 36 m of contour on average) that were degraded at random, with errors in clusters, to the quality
    of a first model (mean Dice 0.78, which left 19 m of contour to draw): such a label then costs about 14
    minutes, as the 13.87 minutes per case of the first round of Ma et al. 2022, and drawing from nothing
    about 25. With errors of the same Dice that are spread evenly instead, it would cost about 16.
    """

    name: str
    reading_s_per_slice: float
    drawing_s_per_mm: float
    tolerance_mm: float
    removal_s_per_component: float
    painting_s_per_cm2: float = 0.0
    #: standard deviation of the log of the noise factor
    noise_sigma: float = 0.15

    #: the default: contours within 3 mm are good enough to leave alone
    ADDED_PATH: ClassVar["TimeModel"]
    #: a stricter second opinion: every contour element that is not exactly right is redrawn
    EXACT: ClassVar["TimeModel"]
    #: a brush instead of a pen: every voxel that changes is painted or erased
    PAINTED: ClassVar["TimeModel"]

    def describe(self) -> str:
        """One sentence for a report."""
        parts = [f"{self.reading_s_per_slice:g} s per slice to read"]
        if self.drawing_s_per_mm:
            match = f"farther than {self.tolerance_mm:g} mm off" if self.tolerance_mm else "not exactly right"
            parts.append(f"{self.drawing_s_per_mm:g} s per mm of contour {match}")
        if self.painting_s_per_cm2:
            parts.append(f"{self.painting_s_per_cm2:g} s per cm² to paint or erase")
        parts.append(f"{self.removal_s_per_component:g} s per false component to remove")
        return f"{', '.join(parts)}; lognormal noise (sigma {self.noise_sigma:g}) fixed per case"


TimeModel.ADDED_PATH = TimeModel(
    name="added path, 3 mm",
    reading_s_per_slice=0.5,
    drawing_s_per_mm=0.04,
    tolerance_mm=3.0,
    removal_s_per_component=10.0,
)
TimeModel.EXACT = TimeModel(
    name="exact path",
    reading_s_per_slice=0.5,
    drawing_s_per_mm=0.03,
    tolerance_mm=0.0,
    removal_s_per_component=10.0,
)
TimeModel.PAINTED = TimeModel(
    name="painted area",
    reading_s_per_slice=0.5,
    drawing_s_per_mm=0.0,
    tolerance_mm=0.0,
    removal_s_per_component=10.0,
    painting_s_per_cm2=0.22,
)
#: the default first; a campaign is costed under each of them
TIME_MODELS = (TimeModel.ADDED_PATH, TimeModel.EXACT, TimeModel.PAINTED)


@dataclass(frozen=True, kw_only=True)
class SimulatedMinutes:
    """What one correction would cost; seconds already include the case's noise factor."""

    reading_s: float
    #: organ -> seconds of drawing and removing
    editing_s: Mapping[str, float]
    #: organ -> added path length in mm, at the model's tolerance
    added_path_mm: Mapping[str, float]
    #: organ -> components to remove
    removed_components: Mapping[str, int]

    @property
    def total_s(self) -> float:
        """Reading and editing together, in seconds."""
        return self.reading_s + sum(self.editing_s.values())

    @property
    def total(self) -> float:
        """Reading and editing together, in minutes."""
        return self.total_s / 60.0


@dataclass(frozen=True, kw_only=True)
class _Effort:
    added_path_mm: float
    changed_cm2: float
    components: int

    def seconds(self, model: TimeModel) -> float:
        return (
            model.drawing_s_per_mm * self.added_path_mm
            + model.painting_s_per_cm2 * self.changed_cm2
            + model.removal_s_per_component * self.components
        )


@dataclass(frozen=True)
class Annotator:
    """Costs corrections under a time model; the same seed, case and labels always cost the same."""

    seed: int
    organs: Mapping[str, int] = field(default_factory=lambda: ORGANS, kw_only=True)
    model: TimeModel = field(default=TimeModel.ADDED_PATH, kw_only=True)

    def minutes(self, coarse: Volume | None, truth: Volume, case_key: str) -> SimulatedMinutes:
        """Cost of correcting `coarse` to `truth`, both uint8 label volumes (k, j, i) on one geometry.

        `coarse=None` is drawing from nothing. `case_key` names the case alike in every campaign (a file name
        or digest, not a server-made id). Raises ValueError when the geometries differ.
        """
        if coarse is not None and not coarse.geometry.matches(truth.geometry):
            raise ValueError("the coarse label is on another grid than the truth: bring both to the case's geometry")
        pace = self._pace(case_key)
        efforts = {organ: self._effort(coarse, truth, value) for organ, value in self.organs.items()}
        return SimulatedMinutes(
            reading_s=pace * self.model.reading_s_per_slice * truth.geometry.size[2],
            editing_s={organ: pace * effort.seconds(self.model) for organ, effort in efforts.items()},
            added_path_mm={organ: effort.added_path_mm for organ, effort in efforts.items()},
            removed_components={organ: effort.components for organ, effort in efforts.items()},
        )

    def _effort(self, coarse: Volume | None, truth: Volume, label_value: int) -> _Effort:
        wanted = truth.voxels == label_value
        given = np.zeros_like(wanted) if coarse is None else coarse.voxels == label_value
        geometry, tolerance_mm = truth.geometry, self.model.tolerance_mm
        pixel_cm2 = geometry.spacing_mm[0] * geometry.spacing_mm[1] / 100.0
        return _Effort(
            added_path_mm=added_path_length_mm(given, wanted, geometry, tolerance_mm=tolerance_mm),
            changed_cm2=voxels_changed(given, wanted) * pixel_cm2,
            components=removed_components(given, wanted),
        )

    def _pace(self, case_key: str) -> float:
        """Noise factor of a case: lognormal with mean 1, from a hash of seed and case."""
        sigma = self.model.noise_sigma
        digest = hashlib.sha256(f"{self.seed}/{case_key}".encode()).digest()
        rng = np.random.default_rng(int.from_bytes(digest[:16], "little"))
        return math.exp(sigma * rng.standard_normal() - sigma**2 / 2.0)
