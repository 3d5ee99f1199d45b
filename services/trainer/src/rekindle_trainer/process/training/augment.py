"""Augmentation of one slice with MONAI's transforms, seeded by what the slice is and not by when it is drawn."""

from __future__ import annotations

from functools import cache
from typing import Any

import monai.data
import numpy as np
import torch
from monai.transforms import (
    Compose,
    Identityd,
    OneOf,
    RandAdjustContrastd,
    RandAffined,
    RandFlipd,
    RandGaussianNoised,
    RandRotate90d,
    RandRotated,
    RandScaleIntensityd,
    RandShiftIntensityd,
)

_BOTH = ("image", "label")
_TWENTY_DEGREES = float(np.deg2rad(20.0))


@cache
def transforms(name: str) -> Compose | None:
    """``paper``: TransUNet's; ``mild``: laterality stays, so that the liver is always on its own side."""
    monai.data.set_track_meta(False)
    if name == "none":
        return None
    if name == "paper":
        turn = Compose([RandRotate90d(_BOTH, prob=1.0, max_k=3), RandFlipd(_BOTH, prob=0.5, spatial_axis=0)])
        tilt = RandRotated(
            _BOTH, range_x=_TWENTY_DEGREES, prob=1.0, mode=("bilinear", "nearest"), padding_mode="border"
        )
        # Half of the slices are turned and flipped, half of the others tilted.
        return Compose([OneOf([turn, tilt, Identityd(_BOTH)], weights=[0.5, 0.25, 0.25])])
    if name == "mild":
        return Compose(
            [
                RandAffined(
                    _BOTH, prob=0.9, rotate_range=_TWENTY_DEGREES, scale_range=0.15, translate_range=8,
                    mode=("bilinear", "nearest"), padding_mode="border",
                ),
                RandScaleIntensityd("image", factors=0.15, prob=0.5),
                RandShiftIntensityd("image", offsets=0.2, prob=0.5),
                RandAdjustContrastd("image", prob=0.3, gamma=(0.7, 1.5)),
                RandGaussianNoised("image", prob=0.3, std=0.1),
            ]
        )  # fmt: skip
    raise ValueError(f"unknown augmentation {name!r}")


def augment(name: str, image: torch.Tensor, label: torch.Tensor, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Image (C, H, W) float32 and label (1, H, W), changed together; the same seed changes them the same way."""
    pipeline = transforms(name)
    if pipeline is None:
        return image, label
    pipeline.set_random_state(seed=seed)
    result: Any = pipeline({"image": image, "label": label})
    return torch.as_tensor(result["image"]), torch.as_tensor(result["label"])
