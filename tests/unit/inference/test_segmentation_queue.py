"""What becomes of durable segmentations: attempts, cancellation, and turns at the gate."""

import threading
from datetime import UTC, datetime, timedelta

import pytest
from rekindle.errors import Cancelled, DeadlineExceeded, IllegalTransition
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
