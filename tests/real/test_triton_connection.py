"""How the engine finds Triton: access keys, TLS, limits of time, and what is said when it does not."""

import os
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc
import pytest
from certificates import Authority
from engines import triton_engine
from rekindle.errors import DependencyUnavailable
from rekindle_servicekit.objects import MemoryObjects
from rekindle_servicekit.workers import Cancellation
from servers.process import free_port
from servers.proxy import Proxy
from servers.triton import TritonServer
from suites.engines import SIZE, images, make_package

KEY = "rekindle-key=only-for-tests"


@pytest.fixture
def objects():
    return MemoryObjects()


def test_restricted_calls_need_the_access_key(objects, tmp_path):
    """With it everything works, shared memory too; without it the message says what to set."""
    package, _ = make_package(objects)
    with TritonServer(tmp_path / "triton", access_key=KEY) as server:
        where = {"address": server.address, "repository": server.repository}
        with triton_engine(objects, **where) as engine, pytest.raises(DependencyUnavailable, match="access key"):
            engine.load(package)
        with triton_engine(objects, **where, connection={"access_key": KEY}) as engine:
            assert (2, 2, *SIZE) == engine.predict(package, images(2), Cancellation()).shape
            assert engine._batches.shares_memory


def test_speaks_tls_to_a_triton_of_a_private_authority(objects, tmp_path):
    """A server of another authority is not believed, and nothing is sent to it."""
    authority, stranger = Authority(tmp_path), Authority(tmp_path, "stranger")
    files, own = authority.issue_server(), authority.issue("client", "inference")
    package, _ = make_package(objects)
    tls = {"ca": authority.certificate, "certificate": own.certificate, "key": own.key}
    server = TritonServer(tmp_path / "triton", tls=(files.certificate, files.key, authority.certificate))
    with server:
        where = {"address": f"localhost:{server.port}", "repository": server.repository}
        with triton_engine(objects, **where, connection=tls) as engine:
            assert (1, 2, *SIZE) == engine.predict(package, images(1), Cancellation()).shape
        for wrong in ({**tls, "ca": stranger.certificate}, {"ca": authority.certificate}, {}):
            with triton_engine(objects, **where, connection=wrong) as engine, pytest.raises(DependencyUnavailable):
                engine.predict(package, images(1), Cancellation())


def test_without_triton_the_message_names_the_model_server(objects, tmp_path):
    """At once, and no model is written to a repository that nobody reads."""
    package, _ = make_package(objects)
    began = time.monotonic()
    with triton_engine(objects, address=f"127.0.0.1:{free_port()}", repository=str(tmp_path / "models")) as engine:
        with pytest.raises(DependencyUnavailable, match=r"model server \(Triton\) cannot be reached"):
            engine.predict(package, images(1), Cancellation())
        assert ["readme.txt"] == list(engine._repository._files.list())
    assert time.monotonic() - began < 10


def test_something_else_at_the_address_is_named(objects, tmp_path):
    """A gRPC server that is no Triton: the setting to check is said."""
    other = grpc.server(ThreadPoolExecutor(1))
    port = other.add_insecure_port("127.0.0.1:0")
    other.start()
    package, _ = make_package(objects)
    repository, refused = str(tmp_path / "models"), pytest.raises(DependencyUnavailable, match="check triton_address")
    with triton_engine(objects, address=f"127.0.0.1:{port}", repository=repository) as engine, refused:
        engine.load(package)
    other.stop(None).wait()


def test_a_triton_that_answers_nothing_is_given_up(objects, tmp_path):
    """Every call has its limit: a stopped server costs seconds, and is used again once it goes on."""
    package, _ = make_package(objects)
    limits = {"control_timeout_s": 1.0, "load_timeout_s": 1.0, "infer_timeout_s": 1.0}
    with TritonServer(tmp_path / "triton") as server:
        where = {"address": server.address, "repository": server.repository}
        with triton_engine(objects, **where) as engine:
            engine.load(package)
        with triton_engine(objects, **where, connection=limits) as engine:
            server.pause()
            for call in (lambda: engine.load(package), lambda: engine.predict(package, images(1), Cancellation())):
                began = time.monotonic()
                with pytest.raises(DependencyUnavailable, match="did not answer within 1 s"):
                    call()
                assert time.monotonic() - began < 15
            server.resume()
        with triton_engine(objects, **where) as engine:
            assert (1, 2, *SIZE) == engine.predict(package, images(1), Cancellation()).shape


def test_where_memory_cannot_be_shared_batches_take_the_socket(objects, triton, monkeypatch):
    """A Triton that cannot see this machine's memory answers all the same."""
    package, _ = make_package(objects)
    with triton_engine(objects, address=triton.address, repository=triton.repository) as engine:
        register = engine._client.register
        monkeypatch.setattr(engine._client, "register", lambda name, _key, size: register(name, "/not-there", size))
        assert (9, 2, *SIZE) == engine.predict(package, images(9), Cancellation()).shape
        assert not engine._batches.shares_memory
    assert [] == list(Path("/dev/shm").glob(f"rekindle-shm-*-{os.getpid()}-*"))


def test_a_machine_that_vanishes_without_a_word_is_reached_anew(objects, triton):
    """The old connection stays open and silent for ever; after one call's limit a new one is used."""
    package, _ = make_package(objects)
    limits = {"control_timeout_s": 1.0, "infer_timeout_s": 1.0}
    with (
        Proxy(triton.port) as line,
        triton_engine(
            objects, address=f"127.0.0.1:{line.port}", repository=triton.repository, connection=limits
        ) as engine,
    ):
        expected = engine.predict(package, images(3), Cancellation())
        line.abandon()
        with pytest.raises(DependencyUnavailable, match="did not answer within 1 s"):
            engine.predict(package, images(3), Cancellation())
        assert expected.tobytes() == engine.predict(package, images(3), Cancellation()).tobytes()
