"""Volumes of the user's own folder, read as the services read them."""

from __future__ import annotations

from pathlib import Path

from rekindle_imaging.files import read_volume
from rekindle_imaging.volume import Volume


def read_image(path: Path) -> Volume:
    """An int16 image (k, j, i). Raises VolumeError."""
    return read_volume(path, kind="image", format="nifti")


def read_label(path: Path) -> Volume:
    """A uint8 label volume (k, j, i). Raises VolumeError."""
    return read_volume(path, kind="mask", format="nifti")
