"""Writes the synthetic seed and target sets as NIfTI, in the folder layout of a real data set."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from rekindle_imaging.files import write_nifti
from rekindle_imaging.geometry import Geometry
from rekindle_imaging.volume import Volume

from rekindle_local.synthetic.anatomy import draw, organ_labels, sample_subject
from rekindle_local.synthetic.appearance import Phase, show_ct, show_mr
from rekindle_local.synthetic.shapes import Space

Range = tuple[float, float]

#: signs of the voxel axes against left, posterior, superior: LAS, LPS, RAS
ORIENTATIONS = ((1.0, -1.0, 1.0), (1.0, 1.0, 1.0), (-1.0, -1.0, 1.0))


@dataclass(frozen=True, kw_only=True)
class Domain:
    """One scanner protocol: what a set of volumes has in common."""

    modality: str
    #: contrast phases that occur (CT only)
    phases: tuple[Phase, ...]
    #: noise deviation from the easiest to the hardest case (HU, or MR units)
    noise: Range
    in_plane_mm: Range
    slice_mm: Range
    columns: tuple[int, int]
    #: lowest and highest slice, millimetres above the renal hilum
    lowest_mm: Range
    highest_mm: Range
    #: crop in z to the organs and this margin; None keeps the whole field of view
    crop_margin_mm: float | None
    #: difficulty of the easiest and the hardest case, in [0, 1]
    difficulty: Range


PUBLIC_CT = Domain(
    modality="CT",
    phases=(Phase.PLAIN, Phase.ARTERIAL),
    noise=(7.0, 14.0),
    in_plane_mm=(2.8, 3.2),
    slice_mm=(6.5, 7.5),
    columns=(116, 124),
    lowest_mm=(-135.0, -125.0),
    highest_mm=(118.0, 128.0),
    crop_margin_mm=25.0,
    difficulty=(0.0, 0.6),
)
PUBLIC_MR = Domain(
    modality="MR",
    phases=(),
    noise=(12.0, 26.0),
    in_plane_mm=(2.9, 3.3),
    slice_mm=(7.0, 8.5),
    columns=(112, 124),
    lowest_mm=(-135.0, -125.0),
    highest_mm=(118.0, 128.0),
    crop_margin_mm=35.0,
    difficulty=(0.0, 0.6),
)
CLINICAL_CT = Domain(
    modality="CT",
    phases=(Phase.PORTAL_VENOUS,),
    noise=(9.0, 26.0),
    in_plane_mm=(3.0, 3.4),
    slice_mm=(7.5, 8.5),
    columns=(116, 128),
    lowest_mm=(-195.0, -165.0),
    highest_mm=(112.0, 145.0),
    crop_margin_mm=None,
    difficulty=(0.0, 1.0),
)


def make_dataset(root: Path, seed: int, *, ct: int = 6, mr: int = 6, target: int = 14) -> None:
    """Write `seed/ct`, `seed/mr` and `target`, each with `images/` and `labels/`, as .nii.gz under `root`.

    The same seed writes the same voxels. Every set has easy and hard cases, evenly spread and in random
    order. Labels: 0 background, 1 liver, 2 spleen.
    """
    sets = (
        ("seed/ct", "ct", PUBLIC_CT, ct),
        ("seed/mr", "mr", PUBLIC_MR, mr),
        ("target", "case", CLINICAL_CT, target),
    )
    for number, (folder, prefix, domain, count) in enumerate(sets):
        for directory in ("images", "labels"):
            (root / folder / directory).mkdir(parents=True, exist_ok=True)
        order = np.random.default_rng((seed, number)).permutation(count)
        for case in range(count):
            difficulty = float(np.interp(order[case], (0, max(count - 1, 1)), domain.difficulty))
            image, labels = make_pair(domain, (seed, number, case), difficulty=difficulty)
            name = f"{prefix}_{case + 1:02d}.nii.gz"
            write_nifti(image, root / folder / "images" / name)
            write_nifti(labels, root / folder / "labels" / name)


def make_pair(domain: Domain, seed: int | tuple[int, ...], *, difficulty: float) -> tuple[Volume, Volume]:
    """One subject in one domain: image (int16) and organ labels (uint8) on the same geometry."""
    rng = np.random.default_rng(seed)
    subject = sample_subject(rng, difficulty=difficulty)
    geometry = _sample_geometry(domain, rng)
    space = _space(geometry)
    tissues = draw(subject, space)
    noise = float(np.interp(difficulty, (0.0, 1.0), domain.noise))
    if domain.modality == "MR":
        image = show_mr(tissues, space, rng, noise=noise, difficulty=difficulty)
    else:
        phase = domain.phases[int(rng.integers(len(domain.phases)))]
        image = show_ct(tissues, rng, phase=phase, noise_hu=noise, difficulty=difficulty)
    pair = Volume(voxels=image, geometry=geometry), Volume(voxels=organ_labels(tissues), geometry=geometry)
    return pair if domain.crop_margin_mm is None else _crop_to_organs(*pair, margin_mm=domain.crop_margin_mm)


def _sample_geometry(domain: Domain, rng: np.random.Generator) -> Geometry:
    in_plane, slice_mm = round(rng.uniform(*domain.in_plane_mm), 3), round(rng.uniform(*domain.slice_mm), 2)
    columns = int(rng.integers(domain.columns[0], domain.columns[1] + 1))
    lowest, highest = rng.uniform(*domain.lowest_mm), rng.uniform(*domain.highest_mm)
    size = (columns, columns, int((highest - lowest) / slice_mm) + 1)
    signs = ORIENTATIONS[int(rng.integers(len(ORIENTATIONS)))]
    # Nobody lies exactly in the middle of the bore.
    centre = (rng.normal(0.0, 5.0), 8.0 + rng.normal(0.0, 5.0))
    half_mm = in_plane * (columns - 1) / 2.0
    return Geometry(
        size=size,
        spacing_mm=(in_plane, in_plane, slice_mm),
        origin_mm=(centre[0] - signs[0] * half_mm, centre[1] - signs[1] * half_mm, lowest),
        direction=(signs[0], 0.0, 0.0, 0.0, signs[1], 0.0, 0.0, 0.0, signs[2]),
    )


def _space(geometry: Geometry) -> Space:
    axes = [
        np.float32(origin) + np.float32(sign * spacing) * np.arange(size, dtype=np.float32)
        for origin, sign, spacing, size in zip(
            geometry.origin_mm, geometry.direction[::4], geometry.spacing_mm, geometry.size, strict=True
        )
    ]
    return Space(x=axes[0][None, None, :], y=axes[1][None, :, None], z=axes[2][:, None, None])


def _crop_to_organs(image: Volume, labels: Volume, *, margin_mm: float) -> tuple[Volume, Volume]:
    geometry = labels.geometry
    slices = np.flatnonzero(labels.voxels.any(axis=(1, 2)))
    margin = round(margin_mm / geometry.spacing_mm[2])
    first, last = max(int(slices[0]) - margin, 0), min(int(slices[-1]) + margin, geometry.size[2] - 1)
    size = (geometry.size[0], geometry.size[1], last - first + 1)
    cropped = geometry.box((0, 0, first), size)
    keep = slice(first, last + 1)
    return (
        Volume(voxels=np.ascontiguousarray(image.voxels[keep]), geometry=cropped),
        Volume(voxels=np.ascontiguousarray(labels.voxels[keep]), geometry=cropped),
    )
