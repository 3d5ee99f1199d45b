"""What every engine does alike; the test module that takes these tests defines `objects` and `engine`."""

import hashlib
import json

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper
from rekindle.errors import Cancelled, DeadlineExceeded, IntegrityError, InvalidInput, NotFound
from rekindle_imaging.package import parse_manifest
from rekindle_inference.ports import Package
from rekindle_servicekit.workers import Cancellation

SIZE = (6, 8)


def make_package(objects, scale=2.0, memory_bytes=1000):
    """A package whose logits are (0, scale * image); stored, and returned with its model's bytes."""
    weight = np.asarray([0.0, scale], np.float32).reshape(2, 1, 1, 1)
    shape = ["N", 1, *SIZE]
    graph = helper.make_graph(
        [helper.make_node("Conv", ["image", "weight"], ["logits"])],
        "scale",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["N", 2, *SIZE])],
        [numpy_helper.from_array(weight, "weight")],
    )
    opsets = [helper.make_opsetid("", 18)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=9).SerializeToString()
    manifest = {
        "format": 1,
        "network": "external",
        "classes": [{"id": "liver", "label_value": 1}],
        "modality": "CT",
        "preprocessing": {
            "orientation": "LPS",
            "spacing_mm": [4.0, 4.0],
            "slice_spacing_mm": None,
            "size": list(SIZE),
            "crop": "none",
            "window": {"kind": "fixed", "low": -200.0, "high": 250.0},
            "normalization": "zscore",
            "channels": 1,
        },
        "opset": 18,
        "model_digest": hashlib.sha256(model).hexdigest(),
        "memory_bytes": memory_bytes,
        "reference": {"input_seed": 1, "batch": 1, "logits_sample": [0.0], "tolerance": 1e-3},
        "lineage": {},
        "postprocessing": {"largest_component": False},
    }
    data = json.dumps(manifest).encode()
    digest = hashlib.sha256(data).hexdigest()
    objects.put(f"packages/{digest}/model.onnx", model)
    return Package(digest=digest, manifest=parse_manifest(data)), model


def images(count, seed=3):
    return np.random.default_rng(seed).standard_normal((count, 1, *SIZE), dtype=np.float32)


def test_computes_the_graph(engine, objects):
    """Logits are those of the graph, for any number of images."""
    package, _ = make_package(objects)
    for count in (1, 5):
        batch = images(count)
        logits = engine.predict(package, batch, Cancellation())
        expected = np.concatenate([np.zeros_like(batch), 2.0 * batch], axis=1)
        assert np.float32 == logits.dtype
        np.testing.assert_allclose(logits, expected, rtol=1e-6)


def test_gives_the_same_bits_again(engine, objects):
    """Equal input, equal bytes; also after it was unloaded."""
    package, _ = make_package(objects)
    first = engine.predict(package, images(3), Cancellation())
    engine.forget(package)
    assert first.tobytes() == engine.predict(package, images(3), Cancellation()).tobytes()


def test_does_not_start_work_that_was_called_off(engine, objects):
    """Cancelled before a batch, or past the deadline: no logits."""
    package, _ = make_package(objects)
    called_off = Cancellation()
    called_off.set()
    with pytest.raises(Cancelled):
        engine.predict(package, images(1), called_off)
    with pytest.raises(DeadlineExceeded):
        engine.predict(package, images(1), Cancellation(timeout_s=0.0))


def test_refuses_images_that_the_graph_does_not_take(engine, objects):
    """Another shape is an error with a reason."""
    package, _ = make_package(objects)
    with pytest.raises(InvalidInput) as refused:
        engine.predict(package, np.zeros((1, 1, 5, 5), np.float32), Cancellation())
    assert "MODEL_FAILED" == refused.value.reason


def test_a_package_without_its_model_is_not_found(engine, objects):
    """A manifest alone cannot be served."""
    package, _ = make_package(objects)
    objects.delete(f"packages/{package.digest}/model.onnx")
    with pytest.raises(NotFound):
        engine.predict(package, images(1), Cancellation())


def test_never_runs_a_damaged_model(engine, objects):
    """The model's digest is checked when it is loaded."""
    package, model = make_package(objects)
    objects.delete(f"packages/{package.digest}/model.onnx")
    objects.put(f"packages/{package.digest}/model.onnx", model + b"\0")
    with pytest.raises(IntegrityError):
        engine.predict(package, images(1), Cancellation())


def test_check_accepts_what_can_be_served(engine, objects):
    """A checked package predicts."""
    package, model = make_package(objects)
    engine.check(package, model)
    assert (1, 2, *SIZE) == engine.predict(package, images(1), Cancellation()).shape


def test_check_refuses_what_is_no_model(engine, objects):
    """Bytes that are no graph are refused with a reason."""
    package, _ = make_package(objects)
    with pytest.raises(InvalidInput) as refused:
        engine.check(package, b"nonsense")
    assert "NOT_ONNX" == refused.value.reason
