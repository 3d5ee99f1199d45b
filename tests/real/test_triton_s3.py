"""Triton reading its models from a bucket, as in production."""

import time
from uuid import uuid4

import numpy as np
import pytest
from engines import triton_engine
from rekindle.errors import DependencyUnavailable, InvalidInput
from rekindle_inference.adapters.triton.config import ModelOptions
from rekindle_inference.adapters.triton.repository import ModelRepository
from rekindle_servicekit.objects import MemoryObjects, PrefixedObjects
from rekindle_servicekit.s3 import S3Objects
from rekindle_servicekit.workers import Cancellation
from servers.proxy import Proxy
from servers.s3 import options_of
from servers.triton import TritonServer
from suites.engines import images, make_package


@pytest.fixture
def objects():
    return MemoryObjects()


@pytest.fixture
def bucket_name(minio):
    return minio.make_bucket(f"models-{uuid4().hex}")


@pytest.fixture
def bucket(minio, bucket_name):
    return S3Objects(options_of(minio, bucket_name))


@pytest.fixture
def repository(bucket):
    """As the service makes it when it starts."""
    repository = PrefixedObjects(bucket, "triton")
    ModelRepository(bucket, repository, ModelOptions()).prepare()
    return repository


@pytest.fixture
def line(minio):
    """From Triton to the bucket."""
    with Proxy(minio.port) as proxy:
        yield proxy


@pytest.fixture
def server(bucket_name, repository, line, tmp_path):
    repository = f"s3://http://127.0.0.1:{line.port}/{bucket_name}/triton"
    with TritonServer(tmp_path / "triton", repository=repository) as server:
        yield server


def ask(engine, package, scale):
    logits = engine.predict(package, images(2), Cancellation())
    np.testing.assert_allclose(logits[:, 1:], scale * images(2), rtol=1e-6)


def test_models_go_by_the_bucket(server, repository, objects):
    """Written below triton/, loaded from there, removed with the model; a broken one leaves nothing."""
    package, model = make_package(objects)
    with triton_engine(objects, address=server.address, repository=repository) as engine:
        engine.check(package, model)
        ask(engine, package, 2.0)
        name = engine.loaded()[0]
        assert [f"{name}/1/model.onnx", f"{name}/config.pbtxt"] == list(repository.list("test"))
        engine.forget(package)
        assert [] == list(repository.list("test"))
        with pytest.raises(InvalidInput) as refused:
            engine.check(package, model.replace(b"Conv", b"Cnov"))
        assert "MODEL_NOT_LOADABLE" == refused.value.reason
        assert [] == list(repository.list("test"))
        ask(engine, package, 2.0)


def test_a_bucket_that_hangs_stops_no_loaded_model(server, repository, line, objects):
    """The new version is UNAVAILABLE meanwhile, soon and not for ever; the old one answers as before."""
    old, new = make_package(objects, 2.0)[0], make_package(objects, 3.0)[0]
    with triton_engine(objects, address=server.address, repository=repository, load_wait_s=1.0) as engine:
        engine.load(old)
        line.hold()
        for _ in range(2):
            began = time.monotonic()
            with pytest.raises(DependencyUnavailable) as waiting:
                ask(engine, new, 3.0)
            assert "MODEL_LOADING" == waiting.value.reason
            assert time.monotonic() - began < 10
            ask(engine, old, 2.0)
        line.go_on()
        deadline = time.monotonic() + 120
        while True:
            try:
                ask(engine, new, 3.0)
                break
            except DependencyUnavailable:
                assert time.monotonic() < deadline
                time.sleep(0.5)
        ask(engine, old, 2.0)


def test_a_bucket_that_is_away_is_no_fault_of_the_model(server, repository, line, objects):
    """UNAVAILABLE, not refused; once the bucket is back the same package loads."""
    package, model = make_package(objects)
    with triton_engine(objects, address=server.address, repository=repository) as engine:
        line.cut()
        with pytest.raises(DependencyUnavailable):
            engine.check(package, model)
        line.heal()
        engine.check(package, model)
        ask(engine, package, 2.0)
