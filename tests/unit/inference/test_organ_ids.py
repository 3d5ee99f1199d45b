"""Ids of organs: one rule for new ones, and a wider one for those that exist."""

import pytest
from rekindle.errors import InvalidInput
from rekindle.vocabulary import FileFormat, Organ, SourceReference, VolumeKind
from rekindle_inference.usecases.checks import check_organs
from rekindle_inference.usecases.volumes import Upload, check_upload

READABLE_ONLY = ["1st_rib", "_rib", "a" * 64]
NEITHER = ["", "Liver", "liver-left", "a" * 65]


def organs(organ_id: str) -> tuple[Organ, ...]:
    return (Organ(id=organ_id, label_value=1),)


def upload(organ_id: str) -> Upload:
    return Upload(
        project_id="p",
        kind=VolumeKind.MASK,
        format=FileFormat.NIFTI,
        sha256="0" * 64,
        source=SourceReference(),
        modality=None,
        image_volume_id="v",
        coarse_mask_volume_id="",
        organs=organs(organ_id),
    )


@pytest.mark.parametrize("organ_id", [*READABLE_ONLY, *NEITHER])
def test_a_new_mask_names_its_organs_by_the_rule_of_projects(organ_id):
    """Lower-case letters, digits and underscores, a letter first, 63 at most: as the scheduler has it."""
    with pytest.raises(InvalidInput, match="organs"):
        check_upload(upload(organ_id))


@pytest.mark.parametrize("organ_id", ["a", "liver", "rib_12", "a" * 63])
def test_ids_by_the_rule_of_projects_are_taken(organ_id):
    """Everywhere."""
    check_upload(upload(organ_id))
    assert organs(organ_id) == check_organs(organs(organ_id))


@pytest.mark.parametrize("organ_id", READABLE_ONLY)
def test_organs_of_packages_and_masks_that_exist_are_still_read(organ_id):
    """What was registered under the wider rule goes on working."""
    assert organs(organ_id) == check_organs(organs(organ_id))


@pytest.mark.parametrize("organ_id", NEITHER)
def test_what_was_never_an_id_is_refused(organ_id):
    """By the wider rule too."""
    with pytest.raises(InvalidInput, match=r"organs\[0\].id"):
        check_organs(organs(organ_id))
