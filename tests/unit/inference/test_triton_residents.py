"""Which models stay loaded, and loads that are shared."""

import threading
import time

import pytest
from rekindle.errors import Cancelled, DependencyUnavailable, NotFound
from rekindle_inference.adapters.triton.loads import Loads
from rekindle_inference.adapters.triton.residents import Residents
from rekindle_servicekit.workers import Cancellation


def residents(limit, *names, size=10):
    found = Residents(limit)
    for name in names:
        found.add(name, "p", size)
    return found


def test_the_least_recently_used_leave_first():
    """Uses count, not the order of loading."""
    kept = residents(25, "a", "b", "c")
    kept.hold("a")
    kept.release("a")
    assert ["b"] == kept.take_surplus()
    assert ("c", "a") == kept.names()


def test_what_is_held_stays_whatever_the_memory():
    """It leaves with its last holder."""
    kept = residents(5, "a", "b")
    kept.hold("a")
    kept.hold("a")
    kept.hold("b")
    kept.release("b")
    kept.release("a")
    assert [] == kept.take_surplus()
    kept.release("a")
    assert ["a"] == kept.take_surplus()


def test_the_last_one_used_stays_though_it_exceeds_the_limit():
    """It is about to be used again."""
    assert [] == residents(5, "a").take_surplus()


def test_kept_models_leave_after_all_others():
    """Also where they were used longer ago."""
    kept = residents(25, "a", "b", "c")
    kept.keep("p", ["a"])
    kept.add("d", "q", 10)
    assert ["b", "c"] == sorted(kept.take_surplus())
    kept.add("e", "q", 10)
    assert ["d"] == kept.take_surplus()


def test_retired_models_leave_though_there_is_room():
    """Those of another project stay."""
    kept = residents(1000, "a", "b")
    kept.add("other", "q", 10)
    kept.hold("a")
    kept.keep("p", ["b"])
    assert [] == kept.take_surplus()
    kept.release("a")
    assert ["a"] == kept.take_surplus()
    assert ("b", "other") == kept.names()


def test_callers_for_one_model_share_its_load():
    """A second caller joins the first one's load, whose error is raised; the next call loads anew."""
    loads, runs, go, outcomes = Loads(), [], threading.Event(), []

    def load():
        runs.append(1)
        go.wait(10)
        raise NotFound("no package")

    def call():
        try:
            loads.run("a", load, None, None)
        except NotFound as error:
            outcomes.append(error.message)

    first = threading.Thread(target=call)
    first.start()
    while not loads.is_running("a"):
        time.sleep(0.01)
    with pytest.raises(DependencyUnavailable):
        loads.run("a", load, 0.0, None)
    assert [1] == runs
    go.set()
    first.join(10)
    call()
    assert [1, 1] == runs
    assert ["no package"] * 2 == outcomes


def test_a_stuck_load_holds_up_nobody_else():
    """Its callers are told after a while, late ones at once; other models load, and it goes on."""
    loads, go, done = Loads(), threading.Event(), threading.Event()

    def stuck():
        go.wait(10)
        done.set()

    with pytest.raises(DependencyUnavailable) as first:
        loads.run("a", stuck, 0.1, None)
    assert "MODEL_LOADING" == first.value.reason
    loads.run("b", lambda: None, 0.1, None)
    began = time.monotonic()
    with pytest.raises(DependencyUnavailable):
        loads.run("a", lambda: None, 0.1, None)
    assert time.monotonic() - began < 5
    go.set()
    assert done.wait(10)


def test_a_caller_that_has_gone_waits_no_longer():
    """The load itself goes on."""
    loads, go, gone = Loads(), threading.Event(), Cancellation()
    gone.set()
    with pytest.raises(Cancelled):
        loads.run("a", lambda: go.wait(10), None, gone)
    assert loads.is_running("a")
    go.set()
