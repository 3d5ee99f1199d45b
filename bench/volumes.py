"""Volumes: the stored form beside .nii.gz, and labels on the native grid beside scipy's zoom."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray
from rekindle_imaging.canonical import decode, encode
from rekindle_imaging.geometry import Geometry
from rekindle_imaging.preprocessing import prepare, prepare_mask, restore_labels
from rekindle_imaging.preprocessing_spec import CPU
from scipy import ndimage

from bench.measure import Figure, Options, Row, alternate, in_child, peak_rss_bytes
from bench.phantom import abdomen

MB = 1e6
CLASSES = 3
#: The field of view is exactly that of the model's grid, since zoom alone cannot crop.
IN_PLANE_MM, SLICE_MM = 0.75, 3.0

Restore = Callable[[NDArray[np.float32], Geometry, Geometry], NDArray[np.uint8]]


def measure(options: Options) -> list[Row]:
    slices, repeats = (40, 1) if options.quick else (100, 3)
    return [*_files(options.folder, slices, repeats), *_labels(slices, repeats)]


def _files(folder: Path, slices: int, repeats: int) -> list[Row]:
    """Writing to and reading from a file, by the stored form and by SimpleITK, with and without gzip."""
    image, _ = abdomen(slices, 512, in_plane_mm=IN_PLANE_MM, slice_mm=SLICE_MM)
    picture, stored = image.to_sitk(), folder / "stored"
    packed, plain = folder / "packed.nii.gz", folder / "plain.nii"
    writes = alternate(
        repeats,
        lambda: stored.write_bytes(encode(image, "image")),
        lambda: sitk.WriteImage(picture, str(packed)),
        lambda: sitk.WriteImage(picture, str(plain)),
    )
    reads = alternate(
        repeats,
        lambda: decode(stored.read_bytes()).voxels,
        lambda: sitk.GetArrayFromImage(sitk.ReadImage(str(packed))),
        lambda: sitk.GetArrayFromImage(sitk.ReadImage(str(plain))),
    )
    rows: list[Row] = []
    shape = f"{slices} x 512 x 512 int16"
    for number, (path, instead) in enumerate([(packed, "SimpleITK .nii.gz"), (plain, "SimpleITK .nii")], 1):
        sizes = [Figure.of([each.stat().st_size / MB]) for each in (stored, path)]
        for what, unit, (ours, theirs) in (
            (f"write {shape}", "s", (Figure.of(writes[0]), Figure.of(writes[number]))),
            (f"read {shape}", "s", (Figure.of(reads[0]), Figure.of(reads[number]))),
            (f"file of {shape}", "MB", sizes),
        ):
            rows.append(Row(what=what, unit=unit, more_is_better=False, rekindle=ours, instead=instead, other=theirs))
    return rows


def _labels(slices: int, repeats: int) -> list[Row]:
    """Probabilities of preset cpu to labels on the native grid; each way in a process of its own."""
    seconds, peaks = zip(*(in_child(_restored, way, slices, repeats) for way in ("rekindle", "zoom")), strict=True)
    what = f"labels of {CLASSES} classes on {slices} x 512 x 512"
    instead = "scipy.ndimage.zoom(order=1) per class"
    return [
        Row(
            what=what, unit="s", more_is_better=False,
            rekindle=Figure.of(seconds[0]), instead=instead, other=Figure.of(seconds[1]),
        ),
        Row(
            what=f"{what}, peak memory of the process", unit="MB", more_is_better=False,
            rekindle=Figure.of([peaks[0] / MB]), instead=instead, other=Figure.of([peaks[1] / MB]),
        ),
    ]  # fmt: skip


def _restored(way: str, slices: int, repeats: int) -> tuple[list[float], int]:
    """Seconds of each repeat, and the most memory held."""
    image, mask = abdomen(slices, 512, in_plane_mm=IN_PLANE_MM, slice_mm=SLICE_MM)
    prepared = prepare(image, replace(CPU, crop="none"))
    labels = prepare_mask(mask, prepared.grid)
    # Blurred, so that classes overlap as a network's do.
    chances = [ndimage.gaussian_filter((labels == c).astype(np.float32), 0.7) for c in range(CLASSES)]
    probabilities = np.stack(chances, axis=1).astype(np.float32, copy=False)
    restore: Restore = restore_labels if way == "rekindle" else zoomed_labels
    seconds: list[float] = []
    for turn in range(repeats + 1):
        began = time.perf_counter()
        restore(probabilities, prepared.grid, prepared.source)
        if turn:
            seconds.append(time.perf_counter() - began)
    return seconds, peak_rss_bytes()


def zoomed_labels(probabilities: NDArray[np.float32], grid: Geometry, source: Geometry) -> NDArray[np.uint8]:
    """What is written first: zoom each class to the native shape, remember the best so far."""
    factors = [native / own for native, own in zip(source.shape, grid.shape, strict=True)]
    best = np.full(source.shape, -np.inf, dtype=np.float32)
    labels = np.zeros(source.shape, dtype=np.uint8)
    for c in range(probabilities.shape[1]):
        values = np.asarray(ndimage.zoom(probabilities[:, c], factors, order=1, grid_mode=True, mode="nearest"))
        labels[values > best] = c
        np.maximum(best, values, out=best)
    return labels
