"""The suite of engines on a real Triton, through shared memory and through the socket, and what Triton adds to it."""

import threading

import numpy as np
import pytest
from engines import triton_engine
from rekindle.errors import InvalidInput
from rekindle.vocabulary import ModelRole
from rekindle_inference.adapters.onnxruntime import OnnxRuntimeEngine
from rekindle_inference.domain.records import ProjectId
from rekindle_inference.usecases.packages import serving_as
from rekindle_servicekit.objects import MemoryObjects
from rekindle_servicekit.workers import Cancellation
from suites.engines import *  # noqa: F403 - the tests of the suite
from suites.engines import SIZE, images, make_package

PROJECT = ProjectId("7b0c")


@pytest.fixture
def objects():
    return MemoryObjects()


@pytest.fixture(params=["shared memory", "socket"])
def engine(request, triton, objects):
    shared = request.param == "shared memory"
    with triton_engine(objects, address=triton.address, repository=triton.repository, shared=shared) as engine:
        yield engine
        assert shared is engine._batches.shares_memory


def version(package, number, role=ModelRole.SUSTAINER, project=PROJECT):
    return serving_as(package, project, role, number)


def suffixes(engine):
    """The loaded models' names without the installation's."""
    return sorted(name.split("-", 1)[1] for name in engine.loaded())


def test_gives_the_embedded_engines_bits(engine, objects):
    """Both run the same graph by the same library with one thread: equal bits, over several batches in flight."""
    package, _ = make_package(objects, scale=1.7)
    batch = images(4 * 4 * 3 + 1)
    embedded = OnnxRuntimeEngine(objects).predict(package, batch, Cancellation())
    assert embedded.tobytes() == engine.predict(package, batch, Cancellation()).tobytes()


def test_a_version_is_a_model_of_its_own(engine, objects):
    """Named by project, role, number and package; igniter and sustainer side by side."""
    one, two = make_package(objects, 2.0)[0], make_package(objects, 3.0)[0]
    igniter, sustainer = version(one, 1, ModelRole.IGNITER), version(two, 2)
    for package, scale in ((igniter, 2.0), (sustainer, 3.0)):
        logits = engine.predict(package, images(2), Cancellation())
        np.testing.assert_allclose(logits[:, 1:], scale * images(2), rtol=1e-6)
    expected = [f"7b0c-igniter-v1-{one.digest[:12]}", f"7b0c-sustainer-v2-{two.digest[:12]}"]
    assert expected == suffixes(engine)


def test_refuses_a_graph_that_triton_cannot_load(engine, objects):
    """The reason is the embedded engine's; nothing stays loaded, in the repository or in Triton."""
    package, model = make_package(objects)
    broken = model.replace(b"Conv", b"Cnov")
    with pytest.raises(InvalidInput) as refused:
        engine.check(version(package, 1), broken)
    assert "MODEL_NOT_LOADABLE" == refused.value.reason
    assert () == engine.loaded()
    assert [] == list(engine._repository._files.list(engine._installation))


def test_keeps_what_serves_and_what_a_rollback_needs(engine, objects):
    """Of four versions the active one and the one before stay; another project's are not touched."""
    packages = [version(make_package(objects, float(n))[0], n) for n in (1, 2, 3, 4)]
    other = version(make_package(objects, 9.0)[0], 1, project=ProjectId("other"))
    for package in (*packages, other):
        engine.load(package)
    engine.keep(PROJECT, packages[2:])
    assert ["7b0c-sustainer-v3", "7b0c-sustainer-v4", "other-sustainer-v1"] == [
        name.rsplit("-", 1)[0] for name in suffixes(engine)
    ]
    # A rollback further back loads it again.
    logits = engine.predict(packages[0], images(1), Cancellation())
    np.testing.assert_allclose(logits[:, 1:], images(1), rtol=1e-6)


def test_a_version_is_unloaded_only_once_nobody_holds_it(engine, objects):
    """A volume in progress keeps its version loaded, whatever is activated meanwhile."""
    old, new = (version(make_package(objects, float(n))[0], n) for n in (1, 2))
    engine.load(old)
    engine.load(new)
    with engine.hold(old):
        engine.keep(PROJECT, [new])
        assert 2 == len(engine.loaded())
    assert [f"7b0c-sustainer-v2-{new.digest[:12]}"] == suffixes(engine)
    assert not engine._client.is_ready(f"{engine._installation}-7b0c-sustainer-v1-{old.digest[:12]}")


def test_unloads_what_was_used_least_recently(triton, objects):
    """Models stay loaded up to the memory that was allowed."""
    one, two, three = (version(make_package(objects, scale)[0], int(scale)) for scale in (1.0, 2.0, 3.0))
    with triton_engine(objects, address=triton.address, repository=triton.repository, memory_bytes=2500) as engine:
        for package in (one, two, one, three):
            engine.predict(package, images(1), Cancellation())
        assert ["7b0c-sustainer-v1", "7b0c-sustainer-v3"] == [name.rsplit("-", 1)[0] for name in suffixes(engine)]


def test_takes_over_what_an_earlier_process_loaded(triton, objects):
    """A restarted service knows its models again, and unloads those that serve no more."""
    packages = [version(make_package(objects, float(n))[0], n) for n in (1, 2)]
    with triton_engine(objects, address=triton.address, repository=triton.repository, installation="inst.a") as before:
        for package in packages:
            before.load(package)
        with triton_engine(
            objects, address=triton.address, repository=triton.repository, installation="inst.a"
        ) as engine:
            engine.keep(PROJECT, packages[1:])
            assert [f"7b0c-sustainer-v2-{packages[1].digest[:12]}"] == suffixes(engine)
            # The first process finds its model gone, and loads it again.
            assert (1, 2, *SIZE) == before.predict(packages[0], images(1), Cancellation()).shape


def test_many_threads_load_a_new_version_once(engine, objects, monkeypatch):
    """The load is shared, and every thread gets its logits."""
    package, loads = version(make_package(objects)[0], 1), []
    load = engine._client.load
    monkeypatch.setattr(engine._client, "load", lambda name: (loads.append(name), load(name)))
    results = []
    threads = [
        threading.Thread(target=lambda: results.append(engine.predict(package, images(3), Cancellation())))
        for _ in range(6)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert [1, 6] == [len(loads), len(results)]
    assert 1 == len({logits.tobytes() for logits in results})
