"""The client's uploads to the real service, over lines that break."""

import gzip
import hashlib

import numpy as np
import pytest
import SimpleITK as sitk
from bad_line import BadLine
from dicom_phantom import archive, series, to_bytes
from http_objects import HttpObjects
from rekindle._call import Retry
from rekindle.api.common.v1 import common_pb2 as common
from rekindle.api.inference.v1 import volumes_pb2 as volumes
from rekindle.api.scheduler.v1 import records_pb2 as records
from rekindle.client import Client
from rekindle.errors import DependencyUnavailable, InvalidInput
from rekindle.projects import Project
from rekindle_servicekit.database import write

MIB = 1024 * 1024


@pytest.fixture(scope="module")
def scan(tmp_path_factory):
    """A NIfTI file of 8 MiB of noise."""
    path = tmp_path_factory.mktemp("scan") / "scan.nii"
    voxels = np.random.default_rng(9).integers(-1000, 1000, (16, 512, 512), dtype=np.int16)
    sitk.WriteImage(sitk.GetImageFromArray(voxels), str(path))
    return path.read_bytes()


@pytest.fixture
def service(start):
    return start(changes={"max_file_bytes": 64 * MIB})


@pytest.fixture
def connect(service):
    """Connects a project to the service by an address, without long waits; the way of uploads may be given."""
    clients = []

    def connect(address, **options):
        retry = Retry(attempts=6, first_wait_s=0.05, max_wait_s=0.5)
        client = Client.connect("127.0.0.1:1", inference=address, retry=retry, timeout_s=30, **options)
        clients.append(client)
        return Project(client._services, records.Project(project_id="project-a", target_modality=common.MODALITY_CT))

    yield connect
    for client in clients:
        client.close()


def stored(service, volume_id):
    """The digest of the file that a volume was made of."""
    request = volumes.GetVolumeRequest(project_id="project-a", volume_id=volume_id)
    return service.volumes.GetVolume(request, timeout=10).volume.original_digest


@pytest.fixture
def line(service):
    """Cut after every 3 MiB: no stream of this file ever gets through."""
    line = BadLine(service.service.server.address, cut_after_bytes=3 * MIB)
    yield line
    line.close()


@pytest.mark.parametrize("way", ["auto", "pieces"])
def test_a_file_gets_through_a_line_that_breaks_every_few_mebibytes(service, line, connect, scan, way):
    """In pieces, each of which is sent again at most; the same file again is the same volume."""
    seen = []
    project = connect(line.address, uploads=way)
    volume_id = project.upload_image(scan, progress=lambda done, total: seen.append((done, total)))
    assert hashlib.sha256(scan).hexdigest() == stored(service, volume_id)
    assert line.cuts >= 2
    # A stream would have cost 3 MiB each time. With one stream that broke first, and one chunk lost for each cut:
    assert line.sent_bytes < len(scan) + 3 * MIB + (line.cuts + 1) * 2 * MIB
    assert (len(scan), len(scan)) == seen[-1]
    assert volume_id == connect(service.service.server.address, uploads="stream").upload_image(scan)


def test_a_stream_alone_does_not_get_through(line, connect, scan):
    """Why there are pieces."""
    with pytest.raises(DependencyUnavailable):
        connect(line.address, uploads="stream").upload_image(scan)


def test_another_process_goes_on_where_the_first_one_stopped(service, connect, scan):
    """The first one died after three chunks; only the rest is sent."""
    direct = service.service.server.address
    upload = connect(direct).begin_upload(scan)
    for offset in range(0, 3 * MIB, MIB):
        upload.put(offset, scan[offset : offset + MIB])
    assert ("open", 3 * MIB, len(scan)) == (upload.state, upload.refresh().received_bytes, upload.size_bytes)
    line = BadLine(direct)
    volume_id = connect(line.address, uploads="pieces").upload_image(scan)
    assert hashlib.sha256(scan).hexdigest() == stored(service, volume_id)
    assert line.sent_bytes < len(scan) - 3 * MIB + MIB // 2
    assert volume_id == upload.finalize().volume.volume_id
    line.close()


def test_a_stream_that_arrived_without_its_answer_is_not_sent_again(service, connect, scan):
    """The upload in pieces of the same file finds the volume there."""
    direct = service.service.server.address
    volume_id = connect(direct, uploads="stream").upload_image(scan)
    line = BadLine(direct)
    assert volume_id == connect(line.address, uploads="pieces").upload_image(scan)
    assert line.sent_bytes < MIB
    line.close()


def test_an_aborted_upload_is_begun_anew(service, connect, scan):
    """What was given up stands in nobody's way."""
    project = connect(service.service.server.address, uploads="pieces")
    first = project.begin_upload(scan)
    first.put(0, scan[:MIB])
    first.abort()
    assert "aborted" == first.state
    assert first.id != project.begin_upload(scan).id
    project.upload_image(scan)


def test_an_upload_that_was_forgotten_is_begun_anew(service, connect, scan):
    """Sent again after weeks, a file is the volume that it has become, and one that never arrived is sent."""
    project = connect(service.service.server.address, uploads="pieces")
    volume_id = project.upload_image(scan)
    other = scan[:-1] + b"!"
    project.begin_upload(other).put(0, other[:MIB])
    with write(service.service.state.engine) as connection:
        for table in ("upload_parts", "uploads"):
            connection.exec_driver_sql(f"DELETE FROM {table}")
    assert volume_id == project.upload_image(scan)
    assert hashlib.sha256(other).hexdigest() == stored(service, project.upload_image(other))


def test_damaged_chunks_are_sent_again(service, connect, scan):
    """Another tool has put other bytes into the same upload: the digest tells, and the file is sent once more."""
    project = connect(service.service.server.address, uploads="pieces")
    project.begin_upload(scan).put(0, b"!" * MIB)
    assert hashlib.sha256(scan).hexdigest() == stored(service, project.upload_image(scan))


def test_a_refused_file_is_refused_in_pieces_too(service, connect):
    """With the reader's reason."""
    with pytest.raises(InvalidInput) as caught:
        connect(service.service.server.address, uploads="pieces").upload_image(b"no volume " * 1000)
    assert "NOT_A_VOLUME" == caught.value.reason


def test_a_mask_in_pieces_brings_its_receipt(service, connect, phantom, tmp_path):
    """The handle's own method, with the way of the client."""
    project = connect(service.service.server.address, uploads="pieces")
    image = project.upload_image(phantom.file(tmp_path))
    project._project.organs.add(id="liver", label_value=6)
    project._project.organs.add(id="spleen", label_value=1)
    receipt = project.upload_mask(phantom.file(tmp_path, "mask"), image_volume_id=image)
    assert image == receipt.image_volume_id
    assert receipt == project.receipt(receipt.receipt_id)


def test_a_file_goes_to_an_address_of_the_store(start, connect, phantom, tmp_path):
    """By HTTP; hardly a byte goes through the service."""
    objects = HttpObjects(tmp_path / "objects")
    service = start(objects=objects)
    line = BadLine(service.service.server.address)
    data = gzip.decompress(phantom.file(tmp_path).read_bytes())
    project = connect(line.address, uploads="address")
    assert hashlib.sha256(data).hexdigest() == stored(service, project.upload_image(data))
    assert line.sent_bytes < len(data) // 2
    objects.close()
    # An address that cannot be reached, and a store without any: in pieces then.
    other = gzip.decompress(phantom.file(tmp_path, voxels=phantom.image + 1).read_bytes())
    assert hashlib.sha256(other).hexdigest() == stored(service, project.upload_image(other))
    line.close()
    plain = start()
    project = connect(plain.service.server.address, uploads="address")
    project.upload_image(phantom.file(tmp_path, voxels=phantom.image + 2))


@pytest.mark.parametrize("way", ["auto", "pieces"])
def test_a_study_gets_through_too(service, connect, way):
    """Its series are answered as by a stream, and there is one of each."""
    ct = series(np.random.default_rng(3).integers(0, 4000, (6, 700, 700), dtype=np.uint16))
    data = archive([*(to_bytes(dataset) for dataset in ct), b"readme " * 100], shuffle=None)
    line = BadLine(service.service.server.address, cut_after_bytes=3 * MIB)
    sent = connect(line.address, uploads=way).upload_study(data)
    assert line.cuts >= 1
    assert [("CT", ""), ("", "NOT_DICOM")] == [(one.modality, one.reason) for one in sent]
    assert sent == connect(service.service.server.address, uploads="stream").upload_study(data)
    line.close()
