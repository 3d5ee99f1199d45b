"""What every engine must do, over the embedded one and one of a few lines in numpy."""

import hashlib
from contextlib import contextmanager

import numpy as np
import pytest
from rekindle.errors import IntegrityError, InvalidInput
from rekindle_inference.adapters.onnxruntime import OnnxRuntimeEngine
from rekindle_servicekit.objects import MemoryObjects
from rekindle_servicekit.workers import Cancellation
from suites.engines import *  # noqa: F403 - the tests of the suite
from suites.engines import images, make_package


class NumpyEngine:
    """Multiplies by the one weight that these tests' graphs have."""

    batch_size = 4

    def __init__(self, objects):
        self._objects = objects

    def check(self, package, model):
        if b"logits" not in model:
            raise InvalidInput("no graph", reason="NOT_ONNX")

    def predict(self, package, images, cancellation):
        model = self._objects.get(f"packages/{package.digest}/model.onnx")
        if hashlib.sha256(model).hexdigest() != package.manifest.model_digest:
            raise IntegrityError("damaged")
        cancellation.raise_if_set()
        if images.shape[1:] != package.manifest.input_shape:
            raise InvalidInput("shape", reason="MODEL_FAILED")
        position = model.index(np.zeros(1, np.float32).tobytes() + np.asarray([2.0], np.float32).tobytes())
        weight = np.frombuffer(model[position : position + 8], np.float32)
        return images * weight.reshape(1, 2, 1, 1)

    def load(self, package):
        self._objects.get(f"packages/{package.digest}/model.onnx")

    @contextmanager
    def hold(self, package):
        yield

    def keep(self, project_id, packages):
        pass

    def forget(self, package):
        pass

    def close(self):
        pass


@pytest.fixture
def objects():
    return MemoryObjects()


@pytest.fixture(params=[OnnxRuntimeEngine, NumpyEngine])
def engine(request, objects):
    return request.param(objects)


def test_the_embedded_engine_unloads_what_was_used_least_recently(objects):
    """Models stay loaded up to the memory that was allowed."""
    engine = OnnxRuntimeEngine(objects, memory_bytes=2500)
    one, two, three = (make_package(objects, scale)[0] for scale in (1.0, 2.0, 3.0))
    for package in (one, two, one, three):
        engine.predict(package, images(1), Cancellation())
    assert (one.digest, three.digest) == engine.loaded()


def test_a_manifest_cannot_make_a_model_weigh_nothing(objects):
    """Memory is reckoned by the file at least, whatever a foreign manifest says."""
    one, model = make_package(objects, 1.0, memory_bytes=0)
    two, _ = make_package(objects, 2.0, memory_bytes=0)
    engine = OnnxRuntimeEngine(objects, memory_bytes=3 * len(model))
    for package in (one, two):
        engine.predict(package, images(1), Cancellation())
    assert (two.digest,) == engine.loaded()
