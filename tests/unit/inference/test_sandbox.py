"""Foreign files are read in a child that can be killed, starved and cut off without harm."""

import multiprocessing
import os
import signal
import socket
import threading
import time

import numpy as np
import pytest
import SimpleITK as sitk
from rekindle.errors import Cancelled, InvalidInput
from rekindle.vocabulary import FileFormat, VolumeKind
from rekindle_imaging import canonical
from rekindle_inference.adapters.sandbox import left_behind, start_forkserver
from rekindle_inference.adapters.sandbox_child import Limits, leave_network
from rekindle_inference.adapters.sandbox_reader import SandboxReader
from rekindle_servicekit.workers import Cancellation


@pytest.fixture(autouse=True, scope="module")
def forkserver():
    start_forkserver()


@pytest.fixture
def work(tmp_path):
    folder = tmp_path / "work"
    folder.mkdir()
    return folder


def write(path, voxels):
    sitk.WriteImage(sitk.GetImageFromArray(voxels), str(path))
    return path


def read(reader, path, cancellation=None, kind=VolumeKind.IMAGE):
    return reader.read(path, kind, FileFormat.NIFTI, cancellation or Cancellation()).data


def reason_of(reader, path):
    with pytest.raises(InvalidInput) as refused:
        read(reader, path)
    return refused.value.reason


@pytest.fixture
def endless(tmp_path):
    """A file that never begins: reading it blocks."""
    path = tmp_path / "endless.nii"
    os.mkfifo(path)
    return path


def test_returns_the_canonical_bytes(tmp_path, work):
    """The voxels arrive as they are in the file, and the child leaves nothing behind."""
    voxels = np.random.default_rng(1).integers(-1000, 1000, (5, 6, 7)).astype(np.int16)
    data = read(SandboxReader(work, Limits()), write(tmp_path / "a.nii.gz", voxels))
    assert np.array_equal(voxels, canonical.decode(data).voxels)
    assert [] == list(work.iterdir())


def test_each_file_has_a_process_of_its_own(tmp_path, work):
    """No child outlives its file."""
    path = write(tmp_path / "a.nii.gz", np.zeros((2, 3, 4), np.int16))
    reader = SandboxReader(work, Limits())
    read(reader, path)
    read(reader, path)
    assert [] == multiprocessing.active_children()


def test_memory_is_limited(tmp_path, work):
    """A volume that needs more than its share is refused; a small one still passes under the same limit."""
    reader = SandboxReader(work, Limits(memory_bytes=100 * 1024**2))
    large = write(tmp_path / "large.nii.gz", np.zeros((160, 640, 640), np.int16))
    small = write(tmp_path / "small.nii.gz", np.zeros((4, 64, 64), np.int16))
    assert reason_of(reader, large) in {"TOO_LARGE", "NOT_A_VOLUME"}
    assert canonical.decode(read(reader, small)).geometry.size == (64, 64, 4)
    assert [] == list(work.iterdir())


def test_output_is_limited(tmp_path, work):
    """Noise cannot be compressed, so its canonical form exceeds a small limit."""
    noise = np.random.default_rng(1).integers(-30000, 30000, (20, 100, 100)).astype(np.int16)
    reader = SandboxReader(work, Limits(output_bytes=100_000))
    assert "TOO_LARGE" == reason_of(reader, write(tmp_path / "noise.nii.gz", noise))


def test_voxels_are_limited(tmp_path, work):
    """The header's claim alone is enough to refuse."""
    reader = SandboxReader(work, Limits(max_voxels=1000))
    assert "TOO_LARGE" == reason_of(reader, write(tmp_path / "a.nii.gz", np.zeros((10, 11, 10), np.int16)))


def test_time_is_limited(work, endless):
    """A parser that does not come back is killed."""
    started = time.monotonic()
    assert "TOO_LARGE" == reason_of(SandboxReader(work, Limits(wall_s=0.3)), endless)
    assert time.monotonic() - started < 5
    assert [] == multiprocessing.active_children()
    assert [] == list(work.iterdir())


def test_a_call_that_was_called_off_kills_the_child(work, endless):
    """Nobody waits for the file any more: the child goes at once."""
    cancellation = Cancellation()
    threading.Timer(0.3, cancellation.set).start()
    with pytest.raises(Cancelled):
        read(SandboxReader(work, Limits()), endless, cancellation)
    assert [] == multiprocessing.active_children()


def test_archives_get_time_by_their_size():
    """100 MiB of compressed slices need about 15 s to decode; memory and output stay as they are."""
    limits = Limits(cpu_s=30, wall_s=60.0)
    assert Limits(cpu_s=55, wall_s=110.0) == limits.for_archive(100 * 1024**2)


def test_a_crash_of_the_parser_is_an_answer(work, endless):
    """A file that makes the parser crash is unreadable, and the service goes on."""

    def crash():
        deadline = time.monotonic() + 10
        while not multiprocessing.active_children() and time.monotonic() < deadline:
            time.sleep(0.01)
        for child in multiprocessing.active_children():
            os.kill(child.pid, signal.SIGSEGV)

    thread = threading.Thread(target=crash)
    thread.start()
    assert "UNREADABLE" == reason_of(SandboxReader(work, Limits()), endless)
    thread.join()


def test_a_mask_is_read_as_labels(tmp_path, work):
    """The kind decides what voxels may be."""
    reader = SandboxReader(work, Limits())
    fractions = write(tmp_path / "p.nii.gz", np.full((2, 3, 4), 0.5, np.float32))
    labels = write(tmp_path / "m.nii.gz", np.full((2, 3, 4), 3, np.int16))
    with pytest.raises(InvalidInput) as refused:
        read(reader, fractions, kind=VolumeKind.MASK)
    assert "NOT_A_MASK" == refused.value.reason
    assert np.uint8 == canonical.decode(read(reader, labels, kind=VolumeKind.MASK)).voxels.dtype


def connects(port, answer):
    """Runs in a child: leaves the network where it may, then looks for a server on this machine."""
    left = leave_network()
    try:
        socket.create_connection(("127.0.0.1", port), timeout=2).close()
        answer.send((left, True))
    except OSError:
        answer.send((left, False))


def test_a_child_has_no_network_where_the_system_allows_that():
    """Cut off, it cannot reach even this machine; where that is forbidden, it says so and goes on."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        receiver, sender = multiprocessing.Pipe(duplex=False)
        arguments = (server.getsockname()[1], sender)
        child = multiprocessing.get_context("spawn").Process(target=connects, args=arguments)
        child.start()
        assert receiver.poll(60)
        left, connected = receiver.recv()
        child.join()
    assert left is not connected


def test_only_plain_files_are_taken_from_a_child(tmp_path):
    """A pipe does not block the service, and a link does not lead it out of the folder."""
    plain, pipe, link = tmp_path / "plain", tmp_path / "pipe", tmp_path / "link"
    plain.write_bytes(b"12345")
    os.mkfifo(pipe)
    link.symlink_to("/dev/zero")
    assert b"1234" == left_behind(plain, 4)
    for trap in (pipe, link):
        with pytest.raises(OSError, match=r"plain|symbolic"):
            left_behind(trap, 4)
