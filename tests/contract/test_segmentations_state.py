"""Durable segmentations and results on every database that state is kept in, with a clock that is set by hand."""

import sys
import threading
from contextlib import closing
from datetime import datetime, timedelta

import pytest
from rekindle.errors import DependencyUnavailable
from rekindle.vocabulary import OrganQuality
from rekindle_inference.adapters.prometheus import queue_metrics
from rekindle_inference.domain import segmentations as domain
from rekindle_inference.domain.abstention import Abstention, AbstentionReason
from rekindle_inference.domain.results import Result, ResultOrigin
from rekindle_inference.domain.segmentations import Priority
from rekindle_inference.state import State
from segmentation_rows import HOUR, NOW, begun, segmentation

ALL = list(Priority)
QUALITY = OrganQuality(
    organ_id="liver",
    soft_dice_confidence=0.25,
    predicted_ml=1.5,
    boundary_length_mm=2.0,
    components=3,
    slices=4,
)
ABSTENTION = Abstention(
    organ_id="liver",
    soft_dice_confidence=0.25,
    limit=0.5,
    reason=AbstentionReason.LOW_CONFIDENCE,
    message="too doubtful",
)


class Clock:
    """Stands until it is moved."""

    def __init__(self):
        self.now = NOW

    def __call__(self, _connection):
        return self.now


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def state(make_database, clock):
    url = make_database(lambda url: State(url).close())
    state = State(url, clock=clock)
    yield state
    state.close()


def add(state, *segmentations):
    with state.write() as uow:
        for each in segmentations:
            uow.segmentations.add(each)


def taken(state, priorities=ALL):
    """Names in the order in which they are taken up."""
    names = []
    while True:
        with state.write() as uow:
            found = uow.segmentations.lock_next(priorities)
            if found is None:
                return names
            names.append(found.segmentation_id)
            claim = {"claim": "c", "now": uow.now, "until": uow.now + HOUR}
            uow.segmentations.update(domain.start(found, model_version_id="m1", **claim))


def test_stat_first_then_by_age_with_batch_an_hour_behind(state):
    """BATCH gives way to ROUTINE that came up to an hour later, and not for longer; STAT waits for nobody."""
    add(
        state,
        segmentation("batch, 70 minutes", Priority.BATCH, 70),
        segmentation("batch, 50 minutes", Priority.BATCH, 50),
        segmentation("routine, 5 minutes", minutes_ago=5),
        segmentation("routine, 20 minutes", minutes_ago=20),
        segmentation("stat, 1 minute", Priority.STAT, 1),
        segmentation("stat, 2 minutes", Priority.STAT, 2),
    )
    assert [
        "stat, 2 minutes",
        "stat, 1 minute",
        "routine, 20 minutes",
        "batch, 70 minutes",
        "routine, 5 minutes",
        "batch, 50 minutes",
    ] == taken(state)


def test_the_queue_is_told_by_state_without_what_succeeded(state):
    """Over all projects; a state in which there is none is there with 0."""
    done = domain.succeed(begun("done"), "result", NOW, slices=1)
    failed = domain.fail(begun("failed"), NOW, reason="BAD", message="bad")
    add(state, segmentation("a"), segmentation("b", project_id="q"), begun("c"), done, failed)
    (metric,) = queue_metrics(state)
    counts = {sample.labels["state"]: sample.value for sample in metric.samples}
    assert {"queued": 2, "running": 1, "failed": 1, "cancelled": 0, "expired": 0} == counts


def test_takes_up_only_priorities_that_have_a_free_worker(state):
    """Others stay in the queue, whatever their place."""
    add(state, segmentation("stat", Priority.STAT), segmentation("routine"), segmentation("batch", Priority.BATCH))
    assert ["batch"] == taken(state, [Priority.BATCH])
    assert ["stat", "routine"] == taken(state)


class FiveMinutesAhead(datetime):
    """The clock of a process that goes wrong."""

    @classmethod
    def now(cls, tz=None):
        return super().now(tz) + timedelta(minutes=5)


def test_a_process_whose_clock_is_ahead_takes_over_no_claim(make_database, monkeypatch):
    """All processes go by the database's clock, whatever their own say."""
    url = make_database(lambda url: State(url).close())
    with closing(State(url)) as first, closing(State(url)) as ahead:
        with first.write() as uow:
            claim = {"claim": "first", "now": uow.now, "until": uow.now + timedelta(seconds=20)}
            held = segmentation("held", expire_at=uow.now + HOUR)
            uow.segmentations.add(domain.start(held, model_version_id="m1", **claim))
        for name, module in list(sys.modules.items()):
            if name.startswith("rekindle_inference.") and getattr(module, "datetime", None) is datetime:
                monkeypatch.setattr(module, "datetime", FiveMinutesAhead)
        assert [] == taken(ahead)


def test_reading_goes_by_the_same_clock_as_writing(make_database):
    """What a writer calls now is never ahead of what a reader calls now afterwards."""
    with closing(State(make_database(lambda url: State(url).close()))) as state:
        with state.write() as uow:
            written = uow.now
        with state.read() as uow:
            assert timedelta(0) <= uow.now - written < timedelta(minutes=1)


def test_a_claim_that_ran_out_is_taken_over_and_its_first_holder_writes_no_more(state, clock):
    """The worker that was gone finds its claim lost when it comes back."""
    add(state, begun("left behind", claim="old", until=NOW + timedelta(seconds=20)))
    assert [] == taken(state)
    clock.now = NOW + timedelta(seconds=21)
    assert ["left behind"] == taken(state)
    with state.write() as uow:
        assert not uow.segmentations.extend_claim("left behind", "old", NOW + HOUR, (1, 2))
        assert uow.segmentations.extend_claim("left behind", "c", NOW + HOUR, (1, 2))
        again = uow.segmentations.get("p", "left behind")
    assert (2, "m1", (1, 2)) == (again.attempts, again.model_version_id, (again.slices_done, again.slices_total))


def test_keeping_a_claim_is_a_change_only_where_there_is_progress(state):
    """Watchers are told of slices, not of heartbeats."""
    add(state, begun("running"))
    revisions = []
    for progress in [(1, 9), (1, 9), (2, 9)]:
        with state.write() as uow:
            uow.segmentations.extend_claim("running", "a", NOW + HOUR, progress)
            revisions.append(uow.segmentations.get("p", "running").revision)
    assert [3, 3, 4] == revisions


def test_expires_what_nobody_works_on(state, clock):
    """Queued or left behind; never what runs."""
    add(
        state,
        segmentation("queued", expire_at=NOW + timedelta(seconds=1)),
        begun("running", expire_at=NOW + timedelta(seconds=1)),
        begun("left behind", expire_at=NOW + timedelta(seconds=1), until=NOW),
        segmentation("in time"),
    )
    clock.now = NOW + timedelta(seconds=2)
    with state.write() as uow:
        assert {"queued", "left behind"} == {each.segmentation_id for each in uow.segmentations.lock_expired(10)}
    assert ["in time"] == taken(state)


def test_what_rests_is_passed_over_until_it_has_rested(state, clock):
    """A pause after something was away holds nobody else up."""
    resting = domain.put_back(begun("resting", minutes_ago=9), reason="away", not_before=NOW + timedelta(seconds=5))
    add(state, resting, segmentation("other"))
    assert ["other"] == taken(state)
    clock.now = NOW + timedelta(seconds=5)
    assert ["resting"] == taken(state)


def test_positions_count_the_queued_of_the_same_priority(state):
    """What runs, and other priorities, do not count."""
    add(
        state,
        begun("running"),
        segmentation("second", minutes_ago=1),
        segmentation("first", minutes_ago=2),
        segmentation("alone", Priority.BATCH, 90),
    )
    with state.read() as uow:
        places = uow.segmentations.positions(["second", "first", "alone", "running", "none"])
    assert {"first": 1, "second": 2, "alone": 1} == places


def result(name, cursor_of):
    return Result(
        result_id=name,
        project_id="p",
        cursor=cursor_of,
        image_volume_id="image",
        mask_volume_id=f"mask {name}",
        origin=ResultOrigin.MODEL,
        model_version_id="m1",
        leads=True,
        quality=(QUALITY,),
        abstentions=(ABSTENTION,),
        segmentation_id="s",
        created_at=NOW,
    )


def test_a_result_comes_out_as_it_went_in(state):
    """Quality, abstentions and all; an image that is not there any more has no source."""
    with state.write() as uow:
        uow.results.lock_feed("p")
        stored = result("r", uow.results.next_cursor("p"))
        uow.results.add(stored)
    with state.read() as uow:
        found = [
            uow.results.get("p", "r"),
            uow.results.head("p", "image"),
            *uow.results.of_image("p", "image", before=None, limit=9),
            *uow.results.after("p", 0, limit=9),
        ]
        elsewhere = uow.results.get("other", "r"), uow.results.after("other", 0, limit=9)
    assert [stored] * 4 == found
    assert (None, []) == elsewhere


def test_cursors_have_no_gaps_and_no_late_comers(state):
    """Whoever adds at the same time waits, so that a reader who saw a cursor has seen all below it."""
    seen, reading = [], threading.Event()

    def add(worker):
        for number in range(10):
            while True:
                try:
                    with state.write() as uow:
                        uow.results.lock_feed("p")
                        cursor = uow.results.next_cursor("p")
                        uow.results.add(result(f"{worker}.{number}", cursor))
                    break
                except DependencyUnavailable:
                    continue  # the very first one of the project came twice

    def read():
        while not reading.is_set() or not seen or len(seen[-1]) < 30:
            with state.read() as uow:
                seen.append([each.cursor for each in uow.results.after("p", 0, limit=99)])

    workers = [threading.Thread(target=add, args=[worker]) for worker in range(3)]
    reader = threading.Thread(target=read)
    for thread in [reader, *workers]:
        thread.start()
    for thread in workers:
        thread.join(60)
    reading.set()
    reader.join(60)
    assert list(range(1, 31)) == seen[-1]
    assert all(list(range(1, len(cursors) + 1)) == cursors for cursors in seen)


def test_workers_that_look_at_once_take_up_each_once(state):
    """Four workers empty a queue of twelve, and none is taken twice."""
    add(state, *(segmentation(f"{number:02}") for number in range(12)))
    names, noting = [], threading.Lock()

    def work():
        found = taken(state)
        with noting:
            names.extend(found)

    workers = [threading.Thread(target=work) for _ in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(60)
    assert [f"{number:02}" for number in range(12)] == sorted(names)
