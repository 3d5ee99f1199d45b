"""Masks through the real service as DICOM SEG, out and in."""

from __future__ import annotations

import hashlib
import io
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK as sitk
from dicom_phantom import ACCESSION, FRAME, SERIES, STUDY, packed, to_bytes
from dicom_volumes import CODED, INSTANCES, PROJECT, download, phantom_series, put, reason_of, upload, upload_mask
from pydicom import dcmread
from rekindle.api.common.v1 import common_pb2 as common
from rekindle.api.inference.v1 import inference_pb2 as inference
from rekindle.api.inference.v1 import volumes_pb2 as messages
from rekindle.api.scheduler.v1 import records_pb2 as records
from rekindle.client import Client
from rekindle.projects import Project
from seg_by_hand import changed, frame_positions, masks_of, segment


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
    """A frame that refers to an absent instance; other grids, unknown segments, other kinds of object."""
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
