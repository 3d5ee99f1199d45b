"""What becomes of durable segmentations: order, claims, expiry, and who stands in whose place."""

import threading
from datetime import UTC, datetime, timedelta

import pytest
from rekindle.errors import Cancelled, DeadlineExceeded, IllegalTransition
from rekindle_inference.adapters.sql import SqlState
from rekindle_inference.domain import segmentations as domain
from rekindle_inference.domain.segmentations import Priority, Segmentation, SegmentationState, queue_place
from rekindle_inference.usecases.gate import PriorityGate
from rekindle_servicekit.workers import Cancellation

NOW = datetime(2030, 1, 1, 12, tzinfo=UTC)
HOUR = timedelta(hours=1)
ALL = list(Priority)


def segmentation(name, priority=Priority.ROUTINE, minutes_ago=0.0, **fields):
    created_at = NOW - timedelta(minutes=minutes_ago)
    lane, due_at = queue_place(priority, created_at, HOUR)
    return Segmentation(
        **{
            "segmentation_id": name,
            "project_id": "p",
            "volume_id": "v",
            "requested_model_version_id": None,
            "priority": priority,
            "lane": lane,
            "due_at": due_at,
            "created_at": created_at,
            "expire_at": NOW + HOUR,
            **fields,
        }
    )


def begun(name, *, claim="a", until=NOW + HOUR, attempts=0, **fields):
    """One that somebody works on."""
    fresh = segmentation(name, attempts=attempts, **fields)
    return domain.start(fresh, model_version_id="m1", claim=claim, now=NOW, until=until)


class Clock:
    """Stands until it is moved."""

    def __init__(self):
        self.now = NOW

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def state(tmp_path, clock):
    state = SqlState(f"sqlite:///{tmp_path}/state.sqlite3", clock=clock)
    yield state
    state.close()


def add(state, *segmentations):
    with state.write() as writes:
        for each in segmentations:
            writes.segmentations.add(each)


def taken(state, priorities=ALL):
    """Names in the order in which they are taken up."""
    names = []
    while True:
        with state.write() as writes:
            found = writes.segmentations.lock_next(priorities)
            if found is None:
                return names
            names.append(found.segmentation_id)
            claim = {"claim": "c", "now": writes.now, "until": writes.now + HOUR}
            writes.segmentations.update(domain.start(found, model_version_id="m1", **claim))


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


def test_takes_up_only_priorities_that_have_a_free_worker(state):
    """Others stay in the queue, whatever their place."""
    add(state, segmentation("stat", Priority.STAT), segmentation("routine"), segmentation("batch", Priority.BATCH))
    assert ["batch"] == taken(state, [Priority.BATCH])
    assert ["stat", "routine"] == taken(state)


def test_a_claim_that_ran_out_is_taken_over_and_its_first_holder_writes_no_more(state, clock):
    """The worker that was gone finds its claim lost when it comes back."""
    add(state, begun("left behind", claim="old", until=NOW + timedelta(seconds=20)))
    assert [] == taken(state)
    clock.now = NOW + timedelta(seconds=21)
    assert ["left behind"] == taken(state)
    with state.write() as writes:
        assert not writes.segmentations.keep("left behind", "old", NOW + HOUR, (1, 2))
        assert writes.segmentations.keep("left behind", "c", NOW + HOUR, (1, 2))
        again = writes.segmentations.get("p", "left behind")
    assert (2, "m1", (1, 2)) == (again.attempts, again.model_version_id, (again.slices_done, again.slices_total))


def test_keeping_a_claim_is_a_change_only_where_there_is_progress(state):
    """Watchers are told of slices, not of heartbeats."""
    add(state, begun("running"))
    revisions = []
    for progress in [(1, 9), (1, 9), (2, 9)]:
        with state.write() as writes:
            writes.segmentations.keep("running", "a", NOW + HOUR, progress)
            revisions.append(writes.segmentations.get("p", "running").revision)
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
    with state.write() as writes:
        assert {"queued", "left behind"} == {each.segmentation_id for each in writes.segmentations.lock_expired(10)}
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
    with state.read() as reads:
        places = reads.segmentations.positions(["second", "first", "alone", "running", "none"])
    assert {"first": 1, "second": 2, "alone": 1} == places


def test_is_worn_out_after_three_attempts_that_count():
    """What was put back uncounted has all its attempts still."""
    uncounted = domain.put_back(begun("x", attempts=2))
    counted = domain.put_back(begun("x", attempts=2), counted=True)
    assert (False, True) == (domain.is_worn_out(uncounted), domain.is_worn_out(counted))


@pytest.mark.parametrize(
    ("state_before", "allowed"),
    [
        (SegmentationState.QUEUED, True),
        (SegmentationState.RUNNING, True),
        (SegmentationState.CANCELLED, True),
        (SegmentationState.SUCCEEDED, False),
        (SegmentationState.FAILED, False),
        (SegmentationState.EXPIRED, False),
    ],
)
def test_cancelling_by_state(state_before, allowed):
    """Cancelled stays cancelled without a change; other ends stand."""
    before = segmentation("x", state=state_before)
    if not allowed:
        with pytest.raises(IllegalTransition):
            domain.cancel(before, NOW)
        return
    after = domain.cancel(before, NOW)
    assert after.state is SegmentationState.CANCELLED
    assert (state_before is SegmentationState.CANCELLED) == (after == before)


def may_pass(turn):
    """Whether the next slice batch may be predicted now; it is taken then."""
    try:
        turn.wait(Cancellation(timeout_s=0.0))
    except DeadlineExceeded:
        return False
    return True


def test_gate_lets_higher_priorities_pass_first():
    """While STAT is present nothing else moves; while ROUTINE is, BATCH waits; alone, each goes freely."""
    gate = PriorityGate(share=3)
    with gate.present(Priority.BATCH) as batch:
        with gate.present(Priority.ROUTINE) as routine:
            with gate.present(Priority.STAT) as urgent:
                assert [True, False, False] == [may_pass(turn) for turn in (urgent, routine, batch)]
            assert [True, False] == [may_pass(turn) for turn in (routine, batch)]
        assert [True] * 9 == [may_pass(batch) for _ in range(9)]


def test_gate_wakes_whoever_waits():
    """The end of what was urgent lets a paused prediction go on at once."""
    gate = PriorityGate()
    with gate.present(Priority.BATCH) as batch:
        with gate.present(Priority.STAT):
            waiting = threading.Thread(target=batch.wait, args=[Cancellation(timeout_s=60)])
            waiting.start()
        waiting.join(30)
    assert not waiting.is_alive()


def test_gate_gives_batch_one_turn_after_each_share_of_routine():
    """A steady stream of ROUTINE slows BATCH down and does not stop it; it never gets more than its share."""
    gate = PriorityGate(share=3)
    routine, batch = Priority.ROUTINE, Priority.BATCH
    with gate.present(routine) as first, gate.present(batch) as second:
        passed = [(may_pass(first), may_pass(second)) for _ in range(7)]
    assert [False, False, True, False, False, True, False] == [second for _, second in passed]
    assert all(first for first, _ in passed)


def test_whoever_waits_at_the_gate_can_be_called_off():
    """A paused prediction ends when its caller has gone."""
    gate = PriorityGate()
    called_off = Cancellation()
    called_off.set()
    with gate.present(Priority.STAT), gate.present(Priority.BATCH) as turn, pytest.raises(Cancelled):
        turn.wait(called_off)
