"""Preprocessing as data: what a package's manifest says, read alike by training and serving."""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from typing import Any, Literal, cast

from rekindle_imaging.errors import VolumeError


def _require(condition: bool, message: str) -> None:
    if not condition:
        raise VolumeError("BAD_PREPROCESSING", message)


def _number(value: Any, name: str) -> None:
    right = isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
    _require(right, f"{name} must be a finite number")


def _pair(value: Any, name: str) -> tuple[Any, Any]:
    _require(isinstance(value, (list, tuple)) and len(cast("list[Any]", value)) == 2, f"{name} must be two numbers")
    for each in value:
        _number(each, name)
    return (value[0], value[1])


def _exactly(values: Mapping[str, Any], keys: set[str], name: str) -> Mapping[str, Any]:
    unknown, missing = set(values) - keys, keys - set(values)
    _require(not unknown, f"{name} has unknown keys: {sorted(map(str, unknown))}")
    _require(not missing, f"{name} lacks keys: {sorted(missing)}")
    return values


@dataclass(frozen=True, kw_only=True)
class Window:
    """Intensities are clipped to low..high: values (`fixed`, HU) or percentiles of the whole volume."""

    kind: Literal["fixed", "percentile"]
    low: float
    high: float

    def __post_init__(self) -> None:
        _require(self.kind in ("fixed", "percentile"), "window.kind must be fixed or percentile")
        _number(self.low, "window.low")
        _number(self.high, "window.high")
        _require(self.low < self.high, "window.low must be below window.high")
        if self.kind == "percentile":
            _require(self.low >= 0 and self.high <= 100, "percentiles lie between 0 and 100")


CT_WINDOW = Window(kind="fixed", low=-200.0, high=250.0)
MR_WINDOW = Window(kind="percentile", low=1.0, high=99.0)


@dataclass(frozen=True, kw_only=True)
class Preprocessing:
    """From a volume to what a network sees. Raises VolumeError("BAD_PREPROCESSING") when it makes no
    sense."""

    orientation: Literal["LPS"] = "LPS"
    #: (between rows, between columns)
    spacing_mm: tuple[float, float]
    #: None: slices as they are.
    slice_spacing_mm: float | None
    #: (rows, columns)
    size: tuple[int, int]
    #: In-plane centre of the grid: the middle of the body, or of the volume.
    crop: Literal["body", "none"] = "body"
    window: Window
    normalization: Literal["zscore"] = "zscore"
    #: 1: the slice alone; 3: the slices before and after it too.
    channels: Literal[1, 3]

    def __post_init__(self) -> None:
        _require(self.orientation == "LPS", "orientation must be LPS")
        object.__setattr__(self, "spacing_mm", _pair(self.spacing_mm, "spacing_mm"))
        object.__setattr__(self, "size", _pair(self.size, "size"))
        _require(all(s > 0 for s in self.spacing_mm), "spacing_mm must be above 0")
        _require(all(type(n) is int and 1 <= n <= 4096 for n in self.size), "size must be 1 to 4096")
        if self.slice_spacing_mm is not None:
            _number(self.slice_spacing_mm, "slice_spacing_mm")
            _require(self.slice_spacing_mm > 0, "slice_spacing_mm must be above 0")
        _require(self.crop in ("body", "none"), "crop must be body or none")
        _require(self.normalization == "zscore", "normalization must be zscore")
        _require(type(self.channels) is int and self.channels in (1, 3), "channels must be 1 or 3")

    def for_modality(self, modality: str) -> "Preprocessing":
        """The same with the window of a modality: percentiles for MR, HU for CT."""
        _require(modality in ("CT", "MR"), "modality must be CT or MR")
        kind, window = ("percentile", MR_WINDOW) if modality == "MR" else ("fixed", CT_WINDOW)
        return self if self.window.kind == kind else replace(self, window=window)

    def to_dict(self) -> dict[str, Any]:
        """Plain lists and dictionaries, for JSON."""
        return {**asdict(self), "spacing_mm": list(self.spacing_mm), "size": list(self.size)}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "Preprocessing":
        """The inverse of `to_dict`; unknown and missing keys are refused."""
        known = dict(_exactly(values, {f.name for f in fields(cls)}, "preprocessing"))
        window = known["window"]
        _require(isinstance(window, Mapping), "window must be an object")
        known["window"] = Window(**_exactly(window, {"kind", "low", "high"}, "window"))
        return cls(**known)


#: The paper's: 1.5 x 1.5 x 8.0 mm, 256 x 256, three adjacent slices.
PAPER = Preprocessing(spacing_mm=(1.5, 1.5), slice_spacing_mm=8.0, size=(256, 256), window=CT_WINDOW, channels=3)
#: The same in plane, slices as they are.
NATIVE = replace(PAPER, slice_spacing_mm=None)
#: Grid for two CPU cores: the paper's field of view at half the resolution.
CPU = replace(PAPER, spacing_mm=(3.0, 3.0), slice_spacing_mm=6.0, size=(128, 128))
#: Grid for synthetic abdomens: the same field of view, coarser.
DEMO = replace(PAPER, spacing_mm=(4.0, 4.0), size=(96, 96))
#: Grid for tests.
TINY = replace(PAPER, spacing_mm=(6.0, 6.0), slice_spacing_mm=12.0, size=(64, 64))
