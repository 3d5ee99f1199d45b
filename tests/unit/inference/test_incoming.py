"""Files of a call go with the call; those of a dead process with the next start."""

import subprocess
import sys

import pytest
from rekindle_inference.adapters.incoming import Incoming


def test_a_folder_goes_with_its_call(tmp_path):
    """Also when the call fails."""
    incoming = Incoming(tmp_path)

    def fail():
        with incoming.folder() as folder:
            (folder / "upload").write_bytes(b"x")
            assert [folder / "upload"] == incoming.files()
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert [] == incoming.files()
    incoming.close()
    assert [] == list(tmp_path.iterdir())


def test_nobody_else_can_read_it(tmp_path):
    """What is uploaded is nobody's business."""
    incoming = Incoming(tmp_path)
    assert 0o700 == incoming.root.stat().st_mode & 0o777
    incoming.close()


def test_what_a_dead_process_left_is_removed(tmp_path):
    """A service that was killed leaves its folder; the next one that starts removes it."""
    code = (
        "import os, sys; from pathlib import Path; from rekindle_inference.adapters.incoming import Incoming\n"
        "folder = Incoming(Path(sys.argv[1])).root; (folder / 'upload').write_bytes(b'x'); os._exit(1)"
    )
    subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=False)
    assert 1 == len(list(tmp_path.glob("*/upload")))
    incoming = Incoming(tmp_path)
    assert [incoming.root] == list(tmp_path.iterdir())
    incoming.close()


def test_what_a_living_process_has_stays(tmp_path):
    """Two services can share a directory for temporary files."""
    first = Incoming(tmp_path)
    with first.folder() as folder:
        (folder / "upload").write_bytes(b"x")
        second = Incoming(tmp_path)
        assert [folder / "upload"] == first.files()
    second.close()
    first.close()
