"""Volumes over the wire."""

from __future__ import annotations

import hashlib
import random
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from fake_world import World
from rekindle._call import Caller
from rekindle.client import Client
from rekindle.errors import DependencyUnavailable, IntegrityError, InvalidInput
from rekindle.projects import Project
from rekindle.volumes import CHUNK_BYTES, with_geometry

BIG = random.Random(7).randbytes(2 * CHUNK_BYTES + 17)


def test_file_arrives_whole_and_with_its_digest(project: Project, world: World) -> None:
    """A file of several chunks is stored as it was, announced by its SHA-256; progress ends at its size."""
    seen: list[tuple[int, int]] = []
    volume_id = project.upload_image(BIG, progress=lambda done, total: seen.append((done, total)))
    assert BIG == world.volumes[volume_id][1]
    (first,) = world.requests("UploadVolume")
    assert hashlib.sha256(BIG).hexdigest() == first.header.sha256
    assert [(CHUNK_BYTES, len(BIG)), (2 * CHUNK_BYTES, len(BIG)), (len(BIG), len(BIG))] == seen


def test_interrupted_upload_is_repeated_whole_under_one_request_id(project: Project, world: World) -> None:
    """The second try sends header and chunks again, as the same upload."""
    world.failures["UploadVolume"] = [DependencyUnavailable("restarting")]
    volume_id = project.upload_image(BIG)
    assert BIG == world.volumes[volume_id][1]
    first, second = world.requests("UploadVolume")
    assert first.header.request_id == second.header.request_id != ""


def test_same_file_again_is_the_same_volume(project: Project) -> None:
    """An upload that is done again answers the volume that there is; another file is another volume."""
    assert project.upload_image(b"one") == project.upload_image(b"one")
    assert project.upload_image(b"one") != project.upload_image(b"two")


def test_download_that_broke_is_fetched_again(project: Project, world: World) -> None:
    """A download is repeated from its start while the service is away."""
    volume_id = project.upload_image(BIG)
    world.failures["DownloadVolume"] = [DependencyUnavailable("restarting")]
    assert BIG == project.download(volume_id).data


def test_damaged_download_is_refused(project: Project, world: World) -> None:
    """Bytes that do not match the announced digest are not handed on."""
    volume_id = project.upload_image(b"image")
    volume, data = world.volumes[volume_id]
    world.volumes[volume_id] = (volume, data[:-1] + b"!")
    with pytest.raises(IntegrityError, match=f"volume {volume_id} arrived damaged"):
        project.download(volume_id)


def test_upload_that_arrives_damaged_is_told(project: Project, world: World) -> None:
    """The service's refusal of damaged bytes arrives as IntegrityError with its reason."""
    world.failures["UploadVolume"] = [IntegrityError("damaged", reason="DIGEST_MISMATCH")]
    with pytest.raises(IntegrityError) as caught:
        project.upload_image(b"image")
    assert "DIGEST_MISMATCH" == caught.value.reason


def test_path_and_image_are_accepted(project: Project, world: World, tmp_path: Path) -> None:
    """A path sends the file's bytes; a SimpleITK image arrives with voxels and geometry intact."""
    path = tmp_path / "scan.nii.gz"
    path.write_bytes(b"as it is")
    assert b"as it is" == world.volumes[project.upload_image(path)][1]

    voxels = np.arange(24, dtype=np.int16).reshape(2, 3, 4)
    image = sitk.GetImageFromArray(voxels)
    image.SetSpacing((0.5, 0.75, 3.0))
    image.SetOrigin((-10.0, 20.0, 30.0))
    fetched = project.download(project.upload_image(image))
    np.testing.assert_array_equal(voxels, fetched.array())
    assert pytest.approx((0.5, 0.75, 3.0)) == fetched.image().GetSpacing()
    assert pytest.approx((-10.0, 20.0, 30.0)) == fetched.image().GetOrigin()


def test_voxels_take_the_geometry_of_an_image() -> None:
    """A mask drawn as an array is put on the grid of its scan."""
    like = sitk.Image(4, 3, 2, sitk.sitkInt16)
    like.SetSpacing((0.5, 0.75, 3.0))
    mask = with_geometry(np.ones((2, 3, 4), np.uint8), like)
    assert (like.GetSize(), like.GetSpacing()) == (mask.GetSize(), mask.GetSpacing())


def test_missing_file_is_named(project: Project, tmp_path: Path) -> None:
    """A path that is no file is refused before any call."""
    with pytest.raises(InvalidInput, match=r"gone\.nii is not a file"):
        project.upload_image(tmp_path / "gone.nii")


def test_segmentation_comes_back_checked(client: Client, project: Project) -> None:
    """The mask, the model and the quality arrive; progress tells slices."""
    seen: list[tuple[int, int]] = []
    result = client.segment(b"abc", project_id=project.id, progress=lambda *step: seen.append(step))
    assert (b"cba", "model-1", [(3, 3)]) == (result.mask.data, result.model_version_id, seen)
    assert ["liver"] == [quality.organ_id for quality in result.quality]


def test_segmentation_waits_for_room(client: Client, project: Project, world: World) -> None:
    """Nothing is stored, so a segmentation is tried again when the service is away."""
    world.failures["Segment"] = [DependencyUnavailable("restarting")]
    assert b"cba" == client.segment(b"abc", project_id=project.id).mask.data


def test_large_files_get_a_longer_deadline() -> None:
    """A gibibyte at half a mebibyte a second takes 2,048 s beside the usual minute."""
    assert 60.0 + 2048.0 == Caller().transfer_timeout_s(1024**3)
