"""What becomes of durable segmentations: attempts, cancellation, and turns at the gate."""

import threading

import pytest
from rekindle.errors import Cancelled, DeadlineExceeded, IllegalTransition
from rekindle_inference.domain import segmentations as domain
from rekindle_inference.domain.segmentations import Priority, SegmentationState
from rekindle_inference.usecases.gate import PriorityGate
from rekindle_servicekit.workers import Cancellation
from segmentation_rows import NOW, begun, segmentation

ALL = list(Priority)


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
