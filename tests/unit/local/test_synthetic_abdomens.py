"""The synthetic abdomens are anatomically plausible, reproducible and varied."""

from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from rekindle_imaging.volume import Volume
from rekindle_local.synthetic import CLINICAL_CT, PUBLIC_CT, PUBLIC_MR, Domain, make_dataset, make_pair
from scipy import ndimage

LIVER, SPLEEN = 1, 2
DOMAINS = pytest.mark.parametrize("domain", [PUBLIC_CT, PUBLIC_MR, CLINICAL_CT], ids=["ct", "mr", "clinical"])
SUBJECTS = [(seed, difficulty) for seed, difficulty in ((1, 0.0), (2, 0.3), (3, 0.6), (4, 1.0))]


def millilitres(labels: Volume, value: int) -> float:
    """Volume of a label, from SimpleITK's own statistics."""
    statistics = sitk.LabelShapeStatisticsImageFilter()
    statistics.Execute(labels.to_sitk())
    return statistics.GetPhysicalSize(value) / 1000.0


def centre_mm(labels: Volume, value: int) -> tuple[float, ...]:
    """Centroid of a label in LPS, from SimpleITK's own statistics."""
    statistics = sitk.LabelShapeStatisticsImageFilter()
    statistics.Execute(labels.to_sitk())
    return statistics.GetCentroid(value)


def contrast_to_noise(image: Volume, labels: Volume) -> float:
    """Liver against its surroundings (a shell of 4 voxels), over the deviation inside the liver."""
    liver = labels.voxels == LIVER
    inner = ndimage.binary_erosion(liver, iterations=2)
    return float(image.voxels[inner].mean()) / float(image.voxels[inner].std())


@DOMAINS
@pytest.mark.parametrize(("seed", "difficulty"), SUBJECTS)
def test_organs_have_human_size_and_side(domain: Domain, seed: int, difficulty: float) -> None:
    """Liver and spleen have plausible volumes; the liver lies on the right, the spleen left and behind."""
    _, labels = make_pair(domain, seed, difficulty=difficulty)
    assert 900.0 < millilitres(labels, LIVER) < 2600.0
    assert 60.0 < millilitres(labels, SPLEEN) < 450.0
    assert centre_mm(labels, LIVER)[0] < -25.0
    assert centre_mm(labels, SPLEEN)[0] > 50.0
    assert centre_mm(labels, SPLEEN)[1] > centre_mm(labels, LIVER)[1]


@DOMAINS
def test_every_organ_is_one_piece(domain: Domain) -> None:
    """At least 97 % of each organ is one connected component."""
    for seed, difficulty in SUBJECTS:
        _, labels = make_pair(domain, seed, difficulty=difficulty)
        for value in (LIVER, SPLEEN):
            pieces, _ = ndimage.label(labels.voxels == value, np.ones((3, 3, 3)))
            sizes = np.bincount(pieces.ravel())[1:]
            assert sizes.max() / sizes.sum() > 0.97


@pytest.mark.parametrize("domain", [PUBLIC_CT, CLINICAL_CT], ids=["ct", "clinical"])
def test_ct_values_are_clipped_hounsfield_units(domain: Domain) -> None:
    """CT is int16 in [-125, 275] HU with livers between 20 and 150 HU."""
    image, labels = make_pair(domain, 5, difficulty=0.4)
    assert np.dtype(np.int16) == image.voxels.dtype
    assert (-125, 275) == (int(image.voxels.min()), int(image.voxels.max()))
    assert 20.0 < float(np.median(image.voxels[labels.voxels == LIVER])) < 150.0


def test_t2_spleen_is_brighter_than_liver() -> None:
    """MR shows the spleen brighter than the liver, as T2 does, and never goes below zero."""
    image, labels = make_pair(PUBLIC_MR, 6, difficulty=0.3)
    spleen, liver = (float(np.median(image.voxels[labels.voxels == value])) for value in (SPLEEN, LIVER))
    assert spleen > 1.3 * liver
    assert int(image.voxels.min()) >= 0


def test_clinical_livers_are_brighter_than_public_ones() -> None:
    """The portal-venous phase enhances the liver: the same subject is brighter in the clinical domain."""
    medians: dict[str, float] = {}
    for name, domain in (("public", PUBLIC_CT), ("clinical", CLINICAL_CT)):
        pairs = [make_pair(domain, seed, difficulty=0.2) for seed in range(4)]
        medians[name] = float(np.mean([np.median(image.voxels[labels.voxels == LIVER]) for image, labels in pairs]))
    assert medians["clinical"] > medians["public"] + 15.0


def test_seed_volumes_are_cropped_to_the_organs_and_clinical_ones_are_not() -> None:
    """A seed CT ends about 25 mm beyond the organs; a clinical CT goes on for at least 50 mm below them."""
    for domain, low, high in ((PUBLIC_CT, 15.0, 35.0), (CLINICAL_CT, 50.0, 250.0)):
        _, labels = make_pair(domain, 7, difficulty=0.2)
        organs = np.flatnonzero(labels.voxels.any(axis=(1, 2)))
        assert low < organs[0] * labels.geometry.spacing_mm[2] < high


def test_hard_cases_are_noisier_than_easy_ones() -> None:
    """Difficulty lowers the liver's signal against its noise, in every subject."""
    for seed in range(3):
        easy, hard = (
            contrast_to_noise(*make_pair(CLINICAL_CT, seed, difficulty=difficulty)) for difficulty in (0.0, 1.0)
        )
        assert hard < 0.6 * easy


def test_same_seed_writes_the_same_voxels(tmp_path: Path) -> None:
    """Two data sets of one seed are equal voxel by voxel; another seed gives other people."""
    for name, seed in (("a", 3), ("b", 3), ("c", 4)):
        make_dataset(tmp_path / name, seed, ct=1, mr=1, target=1)
    for file in (
        "seed/ct/images/ct_01.nii.gz",
        "seed/mr/labels/mr_01.nii.gz",
        "target/images/case_01.nii.gz",
    ):
        first, again, other = (
            sitk.GetArrayFromImage(sitk.ReadImage(str(tmp_path / name / file))) for name in ("a", "b", "c")
        )
        assert np.array_equal(first, again)
        assert not np.array_equal(first, other)


def test_data_set_has_the_layout_of_a_real_one(tmp_path: Path) -> None:
    """Images and labels come in pairs of one geometry, under seed/ct, seed/mr and target."""
    make_dataset(tmp_path, 5, ct=2, mr=1, target=3)
    for folder, count in (("seed/ct", 2), ("seed/mr", 1), ("target", 3)):
        images = sorted(path.name for path in (tmp_path / folder / "images").iterdir())
        labels = sorted(path.name for path in (tmp_path / folder / "labels").iterdir())
        assert count == len(images)
        assert images == labels
        for name in images:
            image, label = (sitk.ReadImage(str(tmp_path / folder / kind / name)) for kind in ("images", "labels"))
            assert image.GetSize() == label.GetSize()
            assert image.GetDirection() == label.GetDirection()
            assert [0, LIVER, SPLEEN] == np.unique(sitk.GetArrayFromImage(label)).tolist()


def test_orientation_and_spacing_vary() -> None:
    """Volumes of one domain differ in axis orientation, spacing and size."""
    geometries = [make_pair(CLINICAL_CT, seed, difficulty=0.1)[1].geometry for seed in range(6)]
    assert len({geometry.direction for geometry in geometries}) >= 2
    assert len({geometry.spacing_mm for geometry in geometries}) == 6
    assert len({geometry.size for geometry in geometries}) >= 3
