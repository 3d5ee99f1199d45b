"""DICOM through the real service: series and studies in, found by where they came from."""

from __future__ import annotations

import hashlib
import io
import logging
import uuid
from typing import Any

import numpy as np
import pytest
import SimpleITK as sitk
from dicom_phantom import ACCESSION, FRAME, SERIES, STUDY, archive, as_mr, instance, packed, series, to_bytes
from dicom_volumes import INSTANCES, PROJECT, download, phantom_series, put, reason_of, upload, upload_mask
from phantom import Phantom
from pydicom import dcmread
from pydicom.uid import BasicTextSRStorage
from rekindle.api.common.v1 import common_pb2 as common
from rekindle.api.inference.v1 import volumes_pb2 as messages
from rekindle_servicekit.database import read
from seg_by_hand import masks_of


def send_study(running: Any, data: bytes, request_id: str = "") -> list[messages.SeriesOutcome]:
    header = messages.UploadStudyHeader(
        request_id=request_id or uuid.uuid4().hex, project_id=PROJECT, sha256=hashlib.sha256(data).hexdigest()
    )
    parts = [messages.UploadStudyRequest(header=header), messages.UploadStudyRequest(chunk=data)]
    return list(running.volumes.UploadStudy(iter(parts), timeout=60).series)


def find(running: Any, **criteria: Any) -> list[str]:
    request = messages.FindVolumesRequest(project_id=PROJECT, **criteria)
    return [volume.volume_id for volume in running.volumes.FindVolumes(request, timeout=10).volumes]


def test_a_series_says_itself_what_it_is(running, phantom, tmp_path):
    """Modality and source come from the files; the voxels are what a NIfTI of the phantom has."""
    volume = upload(running, tmp_path, packed(phantom_series(phantom)))
    assert (common.MODALITY_CT, common.FILE_FORMAT_DICOM) == (volume.modality, volume.original_format)
    assert (STUDY, SERIES, FRAME, ACCESSION, INSTANCES) == (
        volume.source.study_instance_uid,
        volume.source.series_instance_uid,
        volume.source.frame_of_reference_uid,
        volume.source.accession_number,
        list(volume.source.sop_instance_uids),
    )
    as_nifti = running.upload(phantom.file(tmp_path)).volume
    assert as_nifti.canonical_digest == volume.canonical_digest


def test_what_the_header_says_must_agree_with_the_files(running, phantom, tmp_path):
    """Another modality or another source than the files' is refused; the same is fine."""
    data = packed(phantom_series(phantom))
    same = common.SourceReference(study_instance_uid=STUDY, sop_instance_uids=reversed(INSTANCES))
    assert upload(running, tmp_path, data, source=same, modality=common.MODALITY_CT).volume_id
    other = common.SourceReference(accession_number="another")
    assert "SOURCE_MISMATCH" == reason_of(lambda: upload(running, tmp_path, data, source=other))
    assert "MODALITY_MISMATCH" == reason_of(lambda: upload(running, tmp_path, data, modality=common.MODALITY_MR))


def test_dicom_series_are_images_and_segmentations_masks(running, phantom, tmp_path):
    """The other way round neither is taken."""
    data = packed(phantom_series(phantom))
    image = upload(running, tmp_path, data)
    as_mask = {"format": common.FILE_FORMAT_DICOM}
    path = put(tmp_path, data)
    assert "WRONG_FORMAT" == reason_of(lambda: running.upload_mask(path, image.volume_id, **as_mask))
    as_image = {"format": common.FILE_FORMAT_DICOM_SEG, "modality": common.MODALITY_CT}
    assert "WRONG_FORMAT" == reason_of(lambda: upload(running, tmp_path, data, **as_image))


def study(phantom: Phantom) -> bytes:
    """CT, MR, a CT with a gap, a report, and a text file."""
    ct = phantom_series(phantom)
    mr = series(np.full((3, 8, 6), 7, np.uint16), as_mr, SeriesInstanceUID="1.2.3.1.2")
    for number, dataset in enumerate(mr):
        dataset.SOPInstanceUID = f"1.2.3.1.2.{number}"
    gap = series(np.zeros((5, 8, 6), np.uint16), SeriesInstanceUID="1.2.3.1.3")
    report = instance(np.zeros((2, 2), np.uint16), 0, SOPClassUID=BasicTextSRStorage, Modality="SR")
    report.SeriesInstanceUID = "1.2.3.1.4"
    del report.PixelData
    datasets = [*ct, *mr, *gap[:2], *gap[3:], report]
    return archive([*(to_bytes(dataset) for dataset in datasets), b"readme " * 100], shuffle=None)


def test_a_study_is_taken_apart(running, phantom, tmp_path):
    """Each series is a volume or a reason; one archive is stored for all of them."""
    ct, mr, gap, report, text = send_study(running, study(phantom))
    assert (SERIES, "CT") == (ct.series_instance_uid, ct.modality)
    assert (32, 32, 12) == tuple(ct.volume.geometry.size)
    assert (common.MODALITY_MR, (6, 8, 3)) == (mr.volume.modality, tuple(mr.volume.geometry.size))
    assert ["MISSING_SLICES", "NOT_AN_IMAGE", "NOT_DICOM"] == [s.failure.reason for s in (gap, report, text)]
    assert ["CT", "SR", ""] == [s.modality for s in (gap, report, text)]
    assert ct.volume.original_digest == mr.volume.original_digest
    assert upload(running, tmp_path, packed(phantom_series(phantom))).canonical_digest == ct.volume.canonical_digest


def test_a_mask_of_a_studys_series_refers_to_that_series(running, phantom, tmp_path):
    """Whatever else lies in the archive: other series, reports, files that are no DICOM files."""
    ct, *_ = send_study(running, study(phantom))
    mask = upload_mask(running, tmp_path, phantom, ct.volume).volume
    data = download(running, mask.volume_id, common.FILE_FORMAT_DICOM_SEG)
    assert np.array_equal(phantom.mask == 6, masks_of(data, INSTANCES)["liver"])
    assert SERIES == dcmread(io.BytesIO(data)).ReferencedSeriesSequence[0].SeriesInstanceUID


def test_other_formats_are_found_by_what_the_client_says(running, phantom, tmp_path):
    """A NIfTI that was made of a series elsewhere; a reference that can be none is refused."""
    source = common.SourceReference(series_instance_uid="1.2.3.4", accession_number="A-1")
    volume = running.upload(phantom.file(tmp_path), source=source).volume
    assert [volume.volume_id] == find(running, accession_number="A-1", series_instance_uid="1.2.3.4")
    path = phantom.file(tmp_path)
    for wrong in (
        common.SourceReference(series_instance_uid="../../x"),
        common.SourceReference(sop_instance_uids=["1.2.3", "1" * 65]),
        common.SourceReference(accession_number="A" * 65),
    ):
        assert "INVALID_INPUT" == reason_of(lambda source=wrong: running.upload(path, source=source))


def test_a_study_sent_again_is_the_same_study(running, phantom):
    """Under the same request id nothing is added, and the answer is the same, failures too."""
    data, request_id = study(phantom), uuid.uuid4().hex
    first = send_study(running, data, request_id)
    rows = running.rows()
    assert first == send_study(running, data, request_id)
    assert rows == running.rows()
    with read(running.service.state.engine) as connection:
        (kept,) = connection.exec_driver_sql("SELECT response FROM requests").one()
    # Of what became a volume the id is enough, so that erasing the volume leaves nothing of it here.
    assert SERIES.encode() + b'"' not in bytes(kept)


def test_a_study_without_volumes_leaves_only_its_answer(running):
    """Nothing is stored for it; the archive is not kept."""
    (outcome,) = send_study(running, archive([b"readme " * 100]))
    assert "NOT_DICOM" == outcome.failure.reason
    assert [] == [path for path in running.objects_directory.rglob("*") if path.is_file()]
    assert "UNSAFE_ARCHIVE" == reason_of(lambda: send_study(running, archive([b"x"], names=lambda _: "../x")))


def test_volumes_are_found_by_where_they_came_from(running, phantom, tmp_path):
    """By each part of the reference, all of what is given; newest first, page by page; in the project only."""
    ct, mr, *_ = send_study(running, study(phantom))
    again = upload(running, tmp_path, packed(phantom_series(phantom)))
    both = [again.volume_id, ct.volume.volume_id]
    assert both == find(running, series_instance_uid=SERIES)
    assert both == find(running, sop_instance_uid=INSTANCES[3])
    assert {*both, mr.volume.volume_id} == set(find(running, study_instance_uid=STUDY))
    assert {*both, mr.volume.volume_id} == set(find(running, accession_number=ACCESSION))
    assert [mr.volume.volume_id] == find(running, frame_of_reference_uid=FRAME, series_instance_uid="1.2.3.1.2")
    assert [] == find(running, series_instance_uid="1.2.3")
    assert "INVALID_INPUT" == reason_of(lambda: find(running))
    assert "INVALID_INPUT" == reason_of(lambda: find(running, accession_number="a", page_token="b"))
    other = messages.FindVolumesRequest(project_id="project-b", series_instance_uid=SERIES)
    assert [] == list(running.volumes.FindVolumes(other, timeout=10).volumes)


def test_pages_of_found_volumes_follow_each_other(running, phantom, tmp_path):
    """Every volume once, and an empty token at the end; the lists of instances are left out."""
    uploaded = [upload(running, tmp_path, packed(phantom_series(phantom))).volume_id for _ in range(3)]
    token, found = "", []
    for _ in range(3):
        request = messages.FindVolumesRequest(
            project_id=PROJECT, series_instance_uid=SERIES, page_size=1, page_token=token
        )
        answer = running.volumes.FindVolumes(request, timeout=10)
        assert [] == list(answer.volumes[0].source.sop_instance_uids)
        found += [volume.volume_id for volume in answer.volumes]
        token = answer.next_page_token
    assert (uploaded[::-1], "") == (found, token)


@pytest.mark.parametrize(
    ("format", "suffix"), [(common.FILE_FORMAT_NRRD, "nrrd"), (common.FILE_FORMAT_METAIMAGE, "mha")]
)
def test_volumes_go_out_and_come_in_as_nrrd_and_metaimage(running, phantom, tmp_path, format, suffix):
    """ITK reads what is written, on the same grid; what ITK wrote is the same volume as the NIfTI."""
    volume = running.upload(phantom.file(tmp_path)).volume
    path = tmp_path / f"out.{suffix}"
    path.write_bytes(download(running, volume.volume_id, format))
    picture = sitk.ReadImage(str(path))
    assert np.array_equal(phantom.image, sitk.GetArrayFromImage(picture))
    assert ((4.0, 4.0, 5.0), (-60.0, -50.0, 100.0)) == (picture.GetSpacing(), picture.GetOrigin())
    assert download(running, volume.volume_id, format) == path.read_bytes()
    sitk.WriteImage(picture, str(path), useCompression=True)
    assert running.upload(path, format=format).volume.canonical_digest == volume.canonical_digest


def test_patient_data_goes_nowhere(running, phantom, tmp_path, caplog):
    """A name with escapes and markup is in no log, no object's name, no row but the original bytes."""
    name = "<script>alert(1)</script>\x1b$B^Canary"
    # Not the root logger: records of grpc's own hold what must not outlive its loop.
    caplog.set_level(logging.DEBUG, "rekindle_servicekit")
    with caplog.at_level(logging.DEBUG, "rekindle_inference"):
        image = upload(running, tmp_path, packed(phantom_series(phantom, PatientName=name)))
        gap = packed(phantom_series(phantom, PatientName=name)[::3][:2] + phantom_series(phantom, PatientName=name)[9:])
        assert "MISSING_SLICES" == reason_of(lambda: upload(running, tmp_path, gap))
    assert image.volume_id
    for secret in ("Canary", "CANARY", "script", ACCESSION, STUDY):
        assert secret not in caplog.text
        assert not [path for path in running.objects_directory.rglob("*") if secret in str(path)]
    database = b"".join(path.read_bytes() for path in tmp_path.glob("state.sqlite3*"))
    assert b"Canary" not in database
    assert b"CANARY" not in database
