"""Volumes that were read a moment ago are not decoded again, up to a limit."""

import threading
import time

import numpy as np
import pytest
from rekindle.errors import IntegrityError
from rekindle_imaging import canonical
from rekindle_imaging.geometry import Geometry
from rekindle_imaging.volume import Volume
from rekindle_inference.usecases.decoded import DecodedVolumes
from rekindle_servicekit.objects import MemoryObjects

GRID = Geometry(size=(4, 5, 6), spacing_mm=(1, 1, 1), origin_mm=(0, 0, 0), direction=(1, 0, 0, 0, 1, 0, 0, 0, 1))
#: 4 x 5 x 6 voxels of int16.
BYTES = 240


class Counted(MemoryObjects):
    """Notes what is fetched, and takes its time."""

    def __init__(self):
        super().__init__()
        self.fetched = []

    def get(self, key):
        self.fetched.append(key)
        time.sleep(0.02)
        return super().get(key)


@pytest.fixture
def objects():
    return Counted()


def stored(objects, value):
    """The digest of a stored volume of one value."""
    data = canonical.encode(Volume(np.full(GRID.shape, value, np.int16), GRID), "image")
    objects.put(f"canonical/{canonical.digest(data)}", data)
    return canonical.digest(data)


def test_it_is_decoded_once_for_many_readers(objects):
    """Eight that come at once, and one that comes later."""
    digest, decoded = stored(objects, 7), DecodedVolumes(objects, max_voxels=1000, max_bytes=10 * BYTES)
    found = []
    threads = [threading.Thread(target=lambda: found.append(decoded.get(digest))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert 1 == len(objects.fetched)
    assert 1 == len({id(volume) for volume in [*found, decoded.get(digest)]})


def test_the_least_recently_read_leaves_first(objects):
    """Two fit; the third takes the place of the one that was not read since."""
    one, two, three = (stored(objects, value) for value in (1, 2, 3))
    decoded = DecodedVolumes(objects, max_voxels=1000, max_bytes=2 * BYTES)
    for digest in (one, two, one, three):
        decoded.get(digest)
    assert 2 * BYTES == decoded.held_bytes()
    objects.fetched.clear()
    decoded.get(one)
    assert [] == objects.fetched
    decoded.get(two)
    assert [f"canonical/{two}"] == objects.fetched


def test_one_that_does_not_fit_is_read_all_the_same(objects):
    """It is not kept, and what is kept stays."""
    small = stored(objects, 1)
    decoded = DecodedVolumes(objects, max_voxels=1000, max_bytes=BYTES - 1)
    assert 1 == decoded.get(small).voxels[0, 0, 0]
    assert 0 == decoded.held_bytes()


def test_nobody_can_change_what_others_read(objects):
    """Voxels are read-only."""
    decoded = DecodedVolumes(objects, max_voxels=1000, max_bytes=BYTES)
    with pytest.raises(ValueError, match="read-only"):
        decoded.get(stored(objects, 1)).voxels[0, 0, 0] = 2


def test_damage_is_told_and_not_remembered(objects):
    """Once the object is restored it is read."""
    digest, decoded = stored(objects, 1), DecodedVolumes(objects, max_voxels=1000, max_bytes=BYTES)
    data = objects.get(f"canonical/{digest}")
    objects.delete(f"canonical/{digest}")
    with pytest.raises(IntegrityError):
        decoded.get(digest)
    objects.put(f"canonical/{digest}", data)
    assert 1 == decoded.get(digest).voxels[0, 0, 0]
