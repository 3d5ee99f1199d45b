"""DICOM through the real service: series and studies in, masks out as SEG, everything found by its source."""

from __future__ import annotations

import hashlib
import io
import logging
import uuid
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
import SimpleITK as sitk
from dicom_phantom import ACCESSION, FRAME, SERIES, STUDY, archive, as_mr, instance, packed, series, to_bytes
from phantom import Phantom
from pydicom import Dataset, dcmread
from pydicom.uid import BasicTextSRStorage
from rekindle._status import error_from_rpc
from rekindle.api.common.v1 import common_pb2 as common
from rekindle.api.inference.v1 import inference_pb2 as inference
from rekindle.api.inference.v1 import volumes_pb2 as messages
from rekindle.api.scheduler.v1 import records_pb2 as records
from rekindle.client import Client
from rekindle.projects import Project
from seg_by_hand import changed, frame_positions, masks_of, segment

PROJECT = "project-a"
INSTANCES = [f"1.2.3.1.1.{n}" for n in range(1, 13)]
CODED = [
    common.Organ(id="liver", label_value=6),
    common.Organ(
        id="spleen", label_value=1, code=common.CodedConcept(scheme="SCT", value="78961009", meaning="Spleen")
    ),
]


def phantom_series(phantom: Phantom, **changes: Any) -> list[Dataset]:
    """The phantom as CT slices of 4 x 4 x 5 mm."""

    def place(dataset: Dataset, number: int) -> None:
        dataset.ImagePositionPatient = [-60.0, -50.0, 100.0 + 5.0 * number]
        dataset.PixelSpacing = [4.0, 4.0]

    return series((phantom.image.astype(np.int32) + 1024).astype(np.uint16), place, **changes)


def put(folder: Path, data: bytes) -> Path:
    path = folder / uuid.uuid4().hex
    path.write_bytes(data)
    return path


def upload(running: Any, folder: Path, data: bytes, **header: Any) -> messages.Volume:
    fields = {"format": common.FILE_FORMAT_DICOM, "modality": common.MODALITY_UNSPECIFIED, "chunk_bytes": 65536}
    return running.upload(put(folder, data), **{**fields, **header}).volume


def upload_mask(running: Any, folder: Path, phantom: Phantom, image: messages.Volume, **header: Any) -> Any:
    path = phantom.file(folder, "mask")
    return running.upload_mask(path, image.volume_id, **{"organs": CODED, **header})


def download(running: Any, volume_id: str, format: Any, **fields: Any) -> bytes:
    request = messages.DownloadVolumeRequest(project_id=PROJECT, volume_id=volume_id, format=format, **fields)
    answers = list(running.volumes.DownloadVolume(request, timeout=60))
    data = b"".join(answer.chunk for answer in answers[1:])
    assert hashlib.sha256(data).hexdigest() == answers[0].header.sha256
    return data


def send_study(running: Any, data: bytes, request_id: str = "") -> list[messages.SeriesOutcome]:
    header = messages.UploadStudyHeader(
        request_id=request_id or uuid.uuid4().hex, project_id=PROJECT, sha256=hashlib.sha256(data).hexdigest()
    )
    parts = [messages.UploadStudyRequest(header=header), messages.UploadStudyRequest(chunk=data)]
    return list(running.volumes.UploadStudy(iter(parts), timeout=60).series)


def find(running: Any, **criteria: Any) -> list[str]:
    request = messages.FindVolumesRequest(project_id=PROJECT, **criteria)
    return [volume.volume_id for volume in running.volumes.FindVolumes(request, timeout=10).volumes]


def reason_of(call: Any) -> str:
    with pytest.raises(grpc.RpcError) as caught:
        call()
    assert grpc.StatusCode.INVALID_ARGUMENT == caught.value.code()
    return error_from_rpc(caught.value).reason


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
    with running.service.state.read() as reads:
        (kept,) = reads._connection.exec_driver_sql("SELECT response FROM requests").one()
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


def test_a_mask_goes_out_as_a_segmentation(running, phantom, tmp_path):
    """Voxel by voxel the mask, each frame at its source instance, organs coded, drawn by hand."""
    image = upload(running, tmp_path, packed(phantom_series(phantom)))
    mask = upload_mask(running, tmp_path, phantom, image).volume
    data = download(running, mask.volume_id, common.FILE_FORMAT_DICOM_SEG)
    found = masks_of(data, INSTANCES)
    assert np.array_equal(phantom.mask == 6, found["liver"])
    assert np.array_equal(phantom.mask == 1, found["spleen"])
    for uid, position in frame_positions(data).items():
        assert [-60.0, -50.0, 100.0 + 5.0 * INSTANCES.index(uid)] == position
    liver = segment(data, "liver")
    code = liver.SegmentedPropertyTypeCodeSequence[0]
    assert ("SCT", "10200004", "Liver") == (code.CodingSchemeDesignator, code.CodeValue, code.CodeMeaning)
    assert "MANUAL" == liver.SegmentAlgorithmType
    dataset = dcmread(io.BytesIO(data))
    assert (STUDY, FRAME, "BINARY") == (
        dataset.StudyInstanceUID,
        dataset.FrameOfReferenceUID,
        dataset.SegmentationType,
    )
    assert data == download(running, mask.volume_id, common.FILE_FORMAT_DICOM_SEG)
    assert [] == running.service.incoming.files()


def test_simpleitk_reads_the_segmentation_too(running, phantom, tmp_path):
    """Another independent reader: the frames' bits, in the order of the file."""
    image = upload(running, tmp_path, packed(phantom_series(phantom)))
    mask = upload_mask(running, tmp_path, phantom, image).volume
    path = put(tmp_path, download(running, mask.volume_id, common.FILE_FORMAT_DICOM_SEG)).rename(tmp_path / "seg.dcm")
    frames = sitk.GetArrayFromImage(sitk.ReadImage(str(path))) > 0
    # Eight slices show the liver, five the spleen.
    assert 13 == len(frames)
    assert int((phantom.mask > 0).sum()) == int(frames.sum())


def test_a_predicted_mask_names_its_model(running, phantom, package, tmp_path):
    """Automatic, by the model version; its correction is semiautomatic, from the same version."""
    model = running.register(running.upload_package(*package))
    running.activate(model)
    image = upload(running, tmp_path, packed(phantom_series(phantom)))
    (answer,) = running.predict(image.volume_id)
    coarse = answer.prediction.mask_volume_id
    predicted = segment(download(running, coarse, common.FILE_FORMAT_DICOM_SEG), "liver")
    assert "AUTOMATIC" == predicted.SegmentAlgorithmType
    algorithm = predicted.SegmentationAlgorithmIdentificationSequence[0]
    assert model.model_version_id in algorithm.AlgorithmVersion
    corrected = upload_mask(running, tmp_path, phantom, image, coarse_mask_volume_id=coarse).volume
    described = segment(download(running, corrected.volume_id, common.FILE_FORMAT_DICOM_SEG), "liver")
    assert "SEMIAUTOMATIC" == described.SegmentAlgorithmType
    assert model.model_version_id in described.SegmentationAlgorithmIdentificationSequence[0].AlgorithmVersion


def test_a_streamed_series_is_answered_with_a_segmentation(running, phantom, package, tmp_path):
    """Segment of a DICOM series gives a SEG of it, without storing anything."""
    running.activate(running.register(running.upload_package(*package)))
    data, rows = packed(phantom_series(phantom)), running.rows()
    found = masks_of(segmented(running, data), INSTANCES)
    assert np.array_equal(phantom.mask == 6, found["liver"])
    assert np.array_equal(phantom.mask == 1, found["spleen"])
    assert rows == running.rows()
    nifti = phantom.file(tmp_path).read_bytes()
    wrong = {"format": common.FILE_FORMAT_NIFTI, "result_format": common.FILE_FORMAT_DICOM_SEG}
    assert "NO_DICOM_SOURCE" == reason_of(lambda: segmented(running, nifti, **wrong))


def segmented(running: Any, data: bytes, **fields: Any) -> bytes:
    header = inference.SegmentHeader(
        project_id=PROJECT,
        model=inference.ModelSelector(active=True),
        sha256=hashlib.sha256(data).hexdigest(),
        **{"format": common.FILE_FORMAT_DICOM, **fields},
    )
    parts = [inference.SegmentRequest(header=header), inference.SegmentRequest(chunk=data)]
    return b"".join(answer.chunk for answer in running.inference.Segment(iter(parts), timeout=60))


def test_segmentations_that_cannot_be_written_say_why(running, phantom, tmp_path):
    """No DICOM source, no code, an image, a format that is only read."""
    seg, plain = common.FILE_FORMAT_DICOM_SEG, running.upload(phantom.file(tmp_path)).volume
    of_nifti = upload_mask(running, tmp_path, phantom, plain).volume.volume_id
    assert "NO_DICOM_SOURCE" == reason_of(lambda: download(running, of_nifti, seg))
    image = upload(running, tmp_path, packed(phantom_series(phantom)))
    odd = [common.Organ(id="thing", label_value=6), common.Organ(id="spleen", label_value=1)]
    mask = upload_mask(running, tmp_path, phantom, image, organs=odd).volume.volume_id
    assert "NO_ORGAN_CODE" == reason_of(lambda: download(running, mask, seg))
    assert download(running, mask, seg, organs=CODED)
    assert "ORGANS_UNKNOWN" == reason_of(lambda: download(running, mask, seg, organs=CODED[:1]))
    assert "NOT_A_MASK" == reason_of(lambda: download(running, image.volume_id, seg))
    assert "UNWRITABLE_FORMAT" == reason_of(lambda: download(running, mask, common.FILE_FORMAT_DICOM))
    bare = upload(running, tmp_path, packed(phantom_series(phantom, StudyInstanceUID=None)))
    of_bare = upload_mask(running, tmp_path, phantom, bare).volume.volume_id
    assert "MISSING_TAG" == reason_of(lambda: download(running, of_bare, seg))
    assert [] == running.service.incoming.files()


def test_a_segmentation_comes_in_as_a_mask(running, phantom, tmp_path):
    """Laid onto its image by its frames' positions; known by label or by code; the receipt is that of the NIfTI."""
    image = upload(running, tmp_path, packed(phantom_series(phantom)))
    as_nifti = upload_mask(running, tmp_path, phantom, image)
    data = download(running, as_nifti.volume.volume_id, common.FILE_FORMAT_DICOM_SEG)
    taken = send_seg(running, tmp_path, data, image)
    assert as_nifti.volume.canonical_digest == taken.volume.canonical_digest
    assert list(as_nifti.receipt.organs) == list(taken.receipt.organs)
    renamed = dcmread(io.BytesIO(data))
    renamed.SegmentSequence[0].SegmentLabel = "Leber"
    out = io.BytesIO()
    renamed.save_as(out)
    by_code = send_seg(running, tmp_path, out.getvalue(), image)
    assert as_nifti.volume.canonical_digest == by_code.volume.canonical_digest


def send_seg(running: Any, folder: Path, data: bytes, image: messages.Volume, **header: Any) -> Any:
    fields = {"format": common.FILE_FORMAT_DICOM_SEG, "organs": CODED, **header}
    return running.upload_mask(put(folder, data), image.volume_id, **fields)


def test_the_python_client_takes_folders_and_saves_segmentations(running, phantom, tmp_path):
    """From a folder of DICOM files to a SEG on disk and back in as a mask, sent in pieces."""
    folder = tmp_path / "series"
    folder.mkdir()
    for number, dataset in enumerate(phantom_series(phantom)):
        (folder / f"{11 - number}").write_bytes(to_bytes(dataset))
    record = records.Project(project_id=PROJECT, organs=CODED, target_modality=common.MODALITY_CT)
    address = running.service.server.address
    with Client.connect(address, inference=address, trainer=address, uploads="pieces") as client:
        project = Project(client._services, record)
        image = project.upload_image(folder)
        receipt = project.upload_mask(phantom.file(tmp_path, "mask"), image_volume_id=image)
        path = project.save(receipt.mask_volume_id, tmp_path / "mask.dcm")
        again = project.upload_mask(path, image_volume_id=image)
        assert receipt.mask_digest == again.mask_digest
        assert SERIES == project.upload_study(folder)[0].series_instance_uid
        assert image in [found.volume_id for found in project.find_volumes(accession_number=ACCESSION)]


def test_segmentations_that_do_not_fit_are_refused(running, phantom, tmp_path):
    """25: a frame that refers to an absent instance; other grids, unknown segments, other kinds of object."""
    image = upload(running, tmp_path, packed(phantom_series(phantom)))
    mask = upload_mask(running, tmp_path, phantom, image).volume
    data = download(running, mask.volume_id, common.FILE_FORMAT_DICOM_SEG)
    before = running.rows()

    def refused(changed_data: bytes, **header: Any) -> str:
        return reason_of(lambda: send_seg(running, tmp_path, changed_data, image, **header))

    assert "UNKNOWN_INSTANCE" == refused(changed(data, refer_to="1.2.3.4.5.6"))
    assert "GEOMETRY_MISMATCH" == refused(changed(data, Rows=16, Columns=64))
    assert "NOT_A_MASK" == refused(changed(data, SegmentationType="FRACTIONAL"))
    assert "NOT_A_MASK" == refused(changed(data, NumberOfFrames=1))
    assert "TRUNCATED" == refused(changed(data, PixelData=b"\0\0"))
    assert "UNKNOWN_SEGMENT" == refused(data, organs=[common.Organ(id="kidney", label_value=6)])
    assert "NOT_DICOM" == refused(b"letter " * 100)
    overlapping = changed(data, PixelData=b"\xff" * len(dcmread(io.BytesIO(data)).PixelData))
    assert "OVERLAPPING_SEGMENTS" == refused(overlapping)
    assert before == running.rows()


def test_patient_data_goes_nowhere(running, phantom, tmp_path, caplog):
    """26: a name with escapes and markup is in no log, no object's name, no row but the original bytes."""
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
