"""Files of every format, folders of DICOM files, studies and references, from Python and the command line."""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
from pathlib import Path

import pytest
import SimpleITK as sitk
from fake_world import Command, World
from rekindle.api.common.v1 import common_pb2 as common
from rekindle.api.inference.v1 import volumes_pb2 as messages
from rekindle.client import Client
from rekindle.dicom import archive_of
from rekindle.errors import InvalidInput
from rekindle.projects import Project
from rekindle.volumes import VolumeFile, payload

PART_10 = bytes(128) + b"DICM"


@pytest.fixture
def series(tmp_path: Path) -> Path:
    """A folder of DICOM files and of what lies beside them on a CD."""
    folder = tmp_path / "P01_Canary"
    (folder / "deeper").mkdir(parents=True)
    for name, data in {
        "IM2": PART_10 + b"two",
        "IM1": PART_10 + b"one",
        "deeper/IM3": PART_10 + b"three",
        "DICOMDIR": PART_10 + b"directory",
        "README.txt": b"read me",
        ".hidden": PART_10,
    }.items():
        (folder / name).write_bytes(data)
    (folder / "link").symlink_to(folder / "IM1")
    return folder


def test_a_folder_is_an_archive_of_its_dicom_files(series: Path) -> None:
    """By name, without their names, dates and owners; the same bytes each time."""
    data = archive_of(series)
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        files = {member.name: tar.extractfile(member).read() for member in tar}
        assert {(0, 0, "")} == {(member.mtime, member.uid, member.uname) for member in tar.getmembers()}
    assert [PART_10 + word for word in (b"one", b"two", b"three")] == list(files.values())
    assert ["000001.dcm", "000002.dcm", "000003.dcm"] == list(files)
    assert data == archive_of(series)
    assert b"Canary" not in data


def test_a_folder_without_dicom_files_is_refused(tmp_path: Path) -> None:
    """With words that say what to give."""
    with pytest.raises(InvalidInput, match="holds no DICOM files"):
        payload(tmp_path)


@pytest.mark.parametrize(
    ("suffix", "format"), [("nii.gz", "nifti"), ("nii", "nifti"), ("nrrd", "nrrd"), ("mha", "metaimage")]
)
def test_files_that_itk_writes_are_told_by_their_content(tmp_path: Path, suffix: str, format: str) -> None:
    """Whatever they are called, as paths and as bytes."""
    path = tmp_path / f"a.{suffix}"
    sitk.WriteImage(sitk.Image(3, 4, 5, sitk.sitkInt16), str(path))
    renamed = path.rename(tmp_path / "scan")
    assert (format, format) == (payload(renamed).format, payload(renamed.read_bytes()).format)


def test_dicom_files_are_series_or_segmentations(series: Path) -> None:
    """A Part-10 file is an image where an image is asked for, and a SEG where a mask is."""
    assert "dicom" == payload(PART_10).format
    assert "dicom" == payload(archive_of(series)).format
    assert "dicom-seg" == payload(PART_10, is_mask=True).format
    with pytest.raises(InvalidInput, match="give a mask"):
        payload(series, is_mask=True)


def test_uploads_say_their_format(project: Project, series: Path, world: World) -> None:
    """Images as DICOM, masks as DICOM SEG."""
    image = project.upload_image(series)
    project.upload_mask(PART_10 + b"seg", image_volume_id=image)
    first, second = (request.header for request in world.requests("UploadVolume"))
    assert (common.FILE_FORMAT_DICOM, common.FILE_FORMAT_DICOM_SEG) == (first.format, second.format)
    assert hashlib.sha256(archive_of(series)).hexdigest() == first.sha256


def test_a_name_decides_what_is_saved(project: Project, tmp_path: Path) -> None:
    """A file at hand is written as it is; another format is fetched."""
    volume = project.download(project.upload_image(b"voxels"))
    assert b"voxels" == volume.save(tmp_path / "a.nii.gz").read_bytes()
    assert b"FILE_FORMAT_NRRD of voxels" == volume.save(tmp_path / "a.nrrd").read_bytes()
    assert b"FILE_FORMAT_METAIMAGE of voxels" == volume.save(tmp_path / "b" / "a.mha").read_bytes()
    assert b"FILE_FORMAT_DICOM_SEG of voxels" == project.save(volume.volume_id, tmp_path / "a.dcm").read_bytes()


def test_a_plain_nifti_is_unpacked(project: Project, tmp_path: Path) -> None:
    """A name that ends in .nii gets no gzip."""
    packed = tmp_path / "a.nii.gz"
    sitk.WriteImage(sitk.Image(3, 4, 5, sitk.sitkInt16), str(packed))
    saved = project.download(project.upload_image(packed)).save(tmp_path / "b.nii")
    assert b"n+1\0" == saved.read_bytes()[344:348]


def test_what_is_not_stored_comes_in_one_format(tmp_path: Path) -> None:
    """The mask of an ad hoc segmentation cannot be had in another format afterwards."""
    with pytest.raises(InvalidInput, match="ask for nrrd"):
        VolumeFile(b"mask", "").save(tmp_path / "a.nrrd")


def test_segmenting_asks_for_the_formats(client: Client, project: Project, series: Path, world: World) -> None:
    """The folder's format, and the result's where it is said."""
    client.segment(series, project_id=project.id)
    client.segment(series, project_id=project.id, result_format="nrrd")
    first, second = (request.header for request in world.requests("Segment"))
    assert (common.FILE_FORMAT_DICOM, common.FILE_FORMAT_UNSPECIFIED) == (first.format, first.result_format)
    assert common.FILE_FORMAT_NRRD == second.result_format


def test_a_study_says_what_became_of_each_series(project: Project, series: Path, world: World) -> None:
    """Volumes and reasons; sent again it is the same request."""
    ct, report = project.upload_study(series)
    assert ("1.2", "CT", "") == (ct.series_instance_uid, ct.modality, ct.reason)
    assert ("", "NOT_AN_IMAGE") == (report.volume_id, report.reason)
    project.upload_study(series)
    first, second = (request.header.request_id for request in world.requests("UploadStudy"))
    assert first == second != ""


def test_volumes_are_found_on_every_page(project: Project, world: World) -> None:
    """All of them, and none of other accessions."""
    for accession in ("A1", "A1", "A2"):
        source = common.SourceReference(accession_number=accession)
        world.add_volume(messages.Volume(source=source), b"")
    assert 2 == len(list(project.find_volumes(accession_number="A1")))


def test_folders_of_series_are_scans(command: Command, project: Project, series: Path, world: World) -> None:
    """`cases add` takes files of several formats and folders of DICOM files side by side, or one folder alone."""
    sitk.WriteImage(sitk.Image(3, 4, 5, sitk.sitkInt16), str(series.parent / "P02.nrrd"))
    assert 0 == command("cases", "add", series.parent, "--group-from", "^P[0-9]+").exit_code
    assert {"P01", "P02"} == {case.group_key for case in world.cases.values()}
    formats = [request.header.format for request in world.requests("UploadVolume")]
    assert [common.FILE_FORMAT_DICOM, common.FILE_FORMAT_NRRD] == formats
    assert 0 == command("cases", "add", series).exit_code
    assert 2 == len(world.cases)


def test_seeds_may_be_series_with_segmentations(command: Command, project: Project, series: Path, world: World) -> None:
    """images/P01 is a folder, labels/P01.dcm its label."""
    data = series.parent.parent / "seeds"
    (data / "images").mkdir(parents=True)
    (data / "labels").mkdir()
    series.rename(data / "images" / "P01")
    (data / "labels" / "P01.dcm").write_bytes(PART_10 + b"seg")
    assert 0 == command("seeds", "add", data, "--modality", "CT").exit_code
    formats = [request.header.format for request in world.requests("UploadVolume")]
    assert [common.FILE_FORMAT_DICOM, common.FILE_FORMAT_DICOM_SEG] == formats


def test_study_add_registers_what_fits(command: Command, project: Project, series: Path, world: World) -> None:
    """--cases makes scans of the series of the project's modality."""
    result = command("study", "add", series, "--cases", "--patient", "P01", "--json")
    assert 0 == result.exit_code
    assert ["CT", "SR"] == [one["modality"] for one in json.loads(result.stdout)]
    assert ["P01"] == [case.group_key for case in world.cases.values()]


def test_volumes_find_and_save(command: Command, project: Project, tmp_path: Path, world: World) -> None:
    """What is found can be saved in the format that the name ends in."""
    source = common.SourceReference(accession_number="A1", series_instance_uid="1.2")
    volume = world.add_volume(messages.Volume(source=source, modality=common.MODALITY_CT), b"voxels")
    (found,) = json.loads(command("volumes", "find", "--accession", "A1", "--json").stdout)
    assert (volume.volume_id, "CT", "1.2") == (found["volume_id"], found["modality"], found["series_instance_uid"])
    assert 0 == command("volumes", "save", volume.volume_id, tmp_path / "a.dcm").exit_code
    assert b"FILE_FORMAT_DICOM_SEG of voxels" == (tmp_path / "a.dcm").read_bytes()


def test_a_day_with_another_format(command: Command, ready_case: str, tmp_path: Path, world: World) -> None:
    """`next --format nrrd` writes what the viewer reads, and `submit` takes the mask that it writes, or the draft."""
    result = command("next", "--out", tmp_path, "--format", "nrrd")
    folder = tmp_path / ready_case
    assert {"image.nrrd", "coarse.nrrd", "lease.json"} == {path.name for path in folder.iterdir()}
    assert "mask.nrrd" in result.stdout
    (folder / "mask.nrrd").write_bytes(b"NRRD0004 corrected")
    assert 0 == command("submit", folder).exit_code
    assert common.FILE_FORMAT_NRRD == world.requests("UploadVolume")[-1].header.format


def test_segment_writes_what_the_name_ends_in(command: Command, project: Project, series: Path, tmp_path: Path) -> None:
    """A DICOM series gives a DICOM SEG; an ending that is none is refused."""
    assert 0 == command("segment", series, "-o", tmp_path / "mask.dcm").exit_code
    assert (tmp_path / "mask.dcm").is_file()
    assert 2 == command("segment", series, "-o", tmp_path / "mask.txt").exit_code
