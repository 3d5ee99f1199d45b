"""What a campaign has to beat: an intensity threshold and the largest component, per organ."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import SimpleITK as sitk
from rekindle_imaging.masks import dice, largest_component
from rekindle_imaging.volume import Volume
from scipy import ndimage

Pair = tuple[Volume, Volume]
Mask = npt.NDArray[np.bool_]
Signal = npt.NDArray[np.float32]

WORKING_SPACING_MM = (3.0, 3.0, 4.0)
#: candidate half-widths of the intensity window, in standard deviations; chosen on the seed set
WINDOW_WIDTHS = (1.0, 1.5, 2.0, 2.5)
#: CT values above this belong to the body rather than to the air around it
BODY_HU = -110.0


@dataclass(frozen=True, kw_only=True)
class OrganPrior:
    """What the seed set says of one organ."""

    label_value: int
    #: smoothed intensity inside the organ
    mean_hu: float
    deviation_hu: float
    #: accept intensities within this many deviations of the mean
    width: float
    #: where the organ lies in plane, as fractions of the body's box: x to the left, y to the back
    x_range: tuple[float, float]
    y_range: tuple[float, float]


@dataclass(frozen=True, kw_only=True)
class _Scene:
    """A CT on the working grid, (k, j, i) in LPS, with its body box in plane."""

    frame: sitk.Image
    smooth: Signal
    #: fractions of the body's box per column and per row
    x: Signal
    y: Signal


@dataclass(frozen=True, kw_only=True)
class ThresholdBaseline:
    """Thresholds, side and place of each organ, learnt from the CT seed set and nothing else."""

    priors: Mapping[str, OrganPrior]

    @classmethod
    def fit(cls, seed_ct: Iterable[Pair], organs: Mapping[str, int]) -> "ThresholdBaseline":
        """Learn from (image, labels) pairs of the seed set; raises ValueError if an organ occurs in none."""
        scenes = [(_scene(image), labels) for image, labels in seed_ct]
        small = [(scene, _onto(labels, scene.frame)) for scene, labels in scenes]
        return cls(priors={organ: _fit_organ(organ, value, small) for organ, value in organs.items()})

    def predict(self, image: Volume) -> Volume:
        """Label volume (uint8) on the image's own grid."""
        scene = _scene(image)
        labels = np.zeros(scene.smooth.shape, dtype=np.uint8)
        for prior in self.priors.values():
            labels[_find(scene, prior) & (labels == 0)] = prior.label_value
        coarse = sitk.GetImageFromArray(labels)
        coarse.CopyInformation(scene.frame)
        back = sitk.Resample(coarse, image.to_sitk(), sitk.Transform(), sitk.sitkNearestNeighbor, 0)
        return Volume(voxels=sitk.GetArrayFromImage(back).astype(np.uint8), geometry=image.geometry)

    def score(self, cases: Iterable[Pair]) -> dict[str, float | None]:
        """Mean Dice per organ on (image, truth) pairs, and `mean` over organs; None where not defined."""
        scores: dict[str, list[float]] = {organ: [] for organ in self.priors}
        for image, truth in cases:
            predicted = self.predict(image)
            for organ, prior in self.priors.items():
                score = dice(predicted.voxels == prior.label_value, truth.voxels == prior.label_value)
                if score is not None:
                    scores[organ].append(score)
        means = {organ: float(np.mean(values)) if values else None for organ, values in scores.items()}
        defined = [value for value in means.values() if value is not None]
        return {**means, "mean": float(np.mean(defined)) if defined else None}


def _scene(image: Volume) -> _Scene:
    frame = sitk.DICOMOrient(image.to_sitk(), "LPS")
    size = [
        max(1, round(n * given / wanted))
        for n, given, wanted in zip(frame.GetSize(), frame.GetSpacing(), WORKING_SPACING_MM, strict=True)
    ]
    frame = sitk.Resample(
        sitk.Cast(frame, sitk.sitkFloat32),
        size,
        sitk.Transform(),
        sitk.sitkLinear,
        frame.GetOrigin(),
        WORKING_SPACING_MM,
        frame.GetDirection(),
        -1000.0,
    )
    voxels = cast(Signal, sitk.GetArrayFromImage(frame))
    smooth = cast(Signal, ndimage.gaussian_filter(voxels, (0.5, 1.0, 1.0)))
    body: npt.NDArray[Any] = largest_component(smooth > BODY_HU)
    return _Scene(frame=frame, smooth=smooth, x=_fractions(body.any(axis=(0, 1))), y=_fractions(body.any(axis=(0, 2))))


def _fractions(occupied: Any) -> Signal:
    found = np.flatnonzero(occupied)
    first, last = (int(found[0]), int(found[-1])) if found.size else (0, occupied.size - 1)
    return ((np.arange(occupied.size) - first) / max(last - first, 1)).astype(np.float32)


def _onto(labels: Volume, frame: sitk.Image) -> npt.NDArray[np.uint8]:
    moved = sitk.Resample(labels.to_sitk(), frame, sitk.Transform(), sitk.sitkNearestNeighbor, 0)
    return sitk.GetArrayFromImage(moved).astype(np.uint8)


def _fit_organ(organ: str, value: int, seed: Sequence[tuple[_Scene, npt.NDArray[np.uint8]]]) -> OrganPrior:
    masks = [(scene, labels == value) for scene, labels in seed if (labels == value).any()]
    if not masks:
        raise ValueError(f"no CT of the seed set shows the organ {organ} (label {value})")
    inside = np.concatenate([scene.smooth[mask] for scene, mask in masks])
    columns = np.concatenate([scene.x[np.nonzero(mask)[2]] for scene, mask in masks])
    rows = np.concatenate([scene.y[np.nonzero(mask)[1]] for scene, mask in masks])
    candidates = [
        OrganPrior(
            label_value=value,
            mean_hu=float(inside.mean()),
            deviation_hu=float(inside.std()),
            width=width,
            x_range=_central_range(columns),
            y_range=_central_range(rows),
        )
        for width in WINDOW_WIDTHS
    ]
    return max(candidates, key=lambda prior: sum(dice(_find(scene, prior), mask) or 0.0 for scene, mask in masks))


def _central_range(values: Signal) -> tuple[float, float]:
    low, high = np.percentile(values, (1.0, 99.0))
    return float(low), float(high)


def _find(scene: _Scene, prior: OrganPrior) -> Mask:
    near = np.abs(scene.smooth - prior.mean_hu) <= prior.width * prior.deviation_hu
    near &= ((scene.x >= prior.x_range[0]) & (scene.x <= prior.x_range[1]))[None, None, :]
    near &= ((scene.y >= prior.y_range[0]) & (scene.y <= prior.y_range[1]))[None, :, None]
    # Opening cuts the thin bridges to muscle and bowel that have the same values.
    opened = ndimage.binary_opening(near, iterations=2)
    whole = largest_component(cast(Mask, opened))
    return cast(Mask, ndimage.binary_closing(whole, iterations=2)) | whole
