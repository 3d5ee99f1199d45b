"""Whole DICOM studies in pieces."""

import hashlib

import numpy as np
import pytest
from dicom_phantom import archive, series, to_bytes
from refusals import refused
from rekindle.api.inference.v1 import volumes_pb2 as volumes
from rekindle.errors import InvalidInput
from upload_tool import Tool, pieces


def send_study(running, data, request_id):
    """What a stream of the archive answers."""
    header = volumes.UploadStudyHeader(
        request_id=request_id, project_id="project-a", sha256=hashlib.sha256(data).hexdigest()
    )
    parts = [volumes.UploadStudyRequest(header=header), volumes.UploadStudyRequest(chunk=data)]
    return list(running.volumes.UploadStudy(iter(parts), timeout=60).series)


@pytest.fixture
def study(running):
    """An archive of a CT series and a text file, to be sent in pieces; of the header only two fields count."""
    ct = series(np.zeros((5, 8, 6), np.uint16))
    tool = Tool(running, archive([*(to_bytes(dataset) for dataset in ct), b"readme " * 100], shuffle=None))
    tool.header = volumes.UploadVolumeHeader(project_id="project-a", sha256=hashlib.sha256(tool.data).hexdigest())
    return tool


def test_a_study_in_pieces_is_taken_apart(running, study):
    """Its series are answered as a stream answers them, again when it is finalized again."""
    study.create(study=True)
    study.put_all()
    answer = study.finalize()
    ct, text = answer.series
    assert ((6, 8, 5), "NOT_DICOM") == (tuple(ct.volume.geometry.size), text.failure.reason)
    assert not answer.HasField("volume")
    assert answer == study.finalize()
    assert (volumes.UPLOAD_STATE_FINALIZED, []) == (study.query().state, pieces(running))


def test_a_study_and_its_stream_are_one_act(running, study):
    """Whichever arrives first under a request id makes the volumes."""
    study.header.request_id = "r1"
    streamed = send_study(running, study.data, "r1")
    assert volumes.UPLOAD_STATE_FINALIZED == study.create(study=True).state
    assert streamed == list(study.finalize().series)
    study.header.request_id = "r2"
    study.create(study=True)
    study.put_all()
    assert list(study.finalize().series) == send_study(running, study.data, "r2")


def test_a_wrong_study_is_refused(running, study):
    """Before it begins, where its header is wrong; once it has come, where it is no archive: that ends the upload."""
    for field, value in (("project_id", "../x"), ("sha256", "x")):
        header = volumes.UploadVolumeHeader(project_id="project-a", sha256=study.header.sha256)
        setattr(header, field, value)
        error = refused(lambda header=header: study.create(study=True, header=header))
        assert [field] == [violation.field for violation in error.violations]
    tool = Tool(running, archive([b"readme " * 100], names=lambda number: f"../{number}"))
    tool.create(study=True)
    tool.put_all()
    first, again = refused(tool.finalize), refused(tool.finalize)
    assert (InvalidInput, "UNSAFE_ARCHIVE", "UNSAFE_ARCHIVE") == (type(first), first.reason, again.reason)
    assert (volumes.UPLOAD_STATE_ABORTED, []) == (tool.query().state, pieces(running))
