"""Labels as results: what is owed follows the label that counts, and is delivered once."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from rekindle.errors import DependencyUnavailable, InternalError, NotFound
from rekindle_scheduler.actions.outbox import deliver_pending
from rekindle_scheduler.domain.outbox import OutboxEntry, PublishedResult, PublishRequest, decide_request
from rekindle_scheduler.domain.policy import ReviewPolicy
from scheduler_labels import ACCEPT, REJECT, hand_in, other_mask, review, take, take_again, withdraw
from scheduler_ports import Bench


class Feed:
    """Stands in for inference: notes what is delivered, and fails as told."""

    def __init__(self) -> None:
        self.sent: list[PublishRequest] = []
        self.failures: list[Exception] = []
        #: Masks that are never taken.
        self.poison: set[str] = set()
        self._answered: set[str] = set()

    def publish(self, project_id: str, delivery: PublishRequest) -> None:
        if self.failures:
            raise self.failures.pop(0)
        if delivery.mask_volume_id in self.poison:
            raise InternalError("incident 7")
        # As inference does, which answers a request only once anew.
        if delivery.request_id not in self._answered:
            self._answered.add(delivery.request_id)
            self.sent.append(delivery)

    def words(self) -> list[tuple[str, str]]:
        """Mask, and what is said of it."""
        return [(each.mask_volume_id, "retracted" if each.retracted else each.origin.value) for each in self.sent]


@pytest.fixture
def feed() -> Any:
    return Feed()


def drain(bench: Bench, feed: Any) -> None:
    """Deliver all that is owed."""
    while deliver_pending(bench.store, feed):
        pass


def test_a_label_is_delivered_and_then_its_review(bench: Bench, feed: Any) -> None:
    """Corrected, then reviewed; looking again delivers nothing more."""
    label = hand_in(bench, take(bench))
    drain(bench, feed)
    review(bench, label, ACCEPT)
    drain(bench, feed)
    drain(bench, feed)
    mask = label.mask_volume_id
    assert [(mask, "corrected"), (mask, "reviewed")] == feed.words()
    assert [label.submission_id] * 2 == [each.submission_id for each in feed.sent]
    assert label.coarse_model_version_id == feed.sent[0].model_version_id
    assert 2 == len({each.request_id for each in feed.sent})


def test_only_the_last_word_is_delivered(bench: Bench, feed: Any) -> None:
    """What came and went between two looks is told to nobody."""
    withdraw(bench, hand_in(bench, take(bench)))
    drain(bench, feed)
    assert [] == feed.words()


def test_a_label_taken_back_is_taken_back_from_the_feed(bench: Bench, feed: Any) -> None:
    """And the next label of the case is delivered as any other."""
    label = hand_in(bench, take(bench))
    drain(bench, feed)
    withdraw(bench, label)
    drain(bench, feed)
    again = take(bench)
    hand_in(bench, again, receipt=other_mask("again", again))
    drain(bench, feed)
    assert [(label.mask_volume_id, "corrected"), (label.mask_volume_id, "retracted"), ("again", "corrected")] == (
        feed.words()
    )


def test_the_label_before_stands_again_when_the_correction_of_it_is_withdrawn(bench: Bench, feed: Any) -> None:
    """A correction takes the place of the first label, and gives it back."""
    first = hand_in(bench, take(bench))
    drain(bench, feed)
    lease = take_again(bench, first.case_id)
    second = hand_in(bench, lease, receipt=other_mask("second", lease))
    drain(bench, feed)
    withdraw(bench, second)
    drain(bench, feed)
    assert [(first.mask_volume_id, "corrected"), ("second", "corrected"), (first.mask_volume_id, "corrected")] == (
        feed.words()
    )


def test_a_label_that_waits_for_a_reviewer_is_delivered_once_it_counts(tmp_path: Path, feed: Any) -> None:
    """Not before; a rejected one never."""
    bench = Bench(tmp_path)
    bench.annotating("v1", "v2", review=ReviewPolicy(required=True))
    labels = [hand_in(bench, take(bench)), hand_in(bench, take(bench))]
    drain(bench, feed)
    before = feed.words()
    review(bench, labels[0], ACCEPT)
    review(bench, labels[1], REJECT)
    drain(bench, feed)
    assert [] == before
    assert [(labels[0].mask_volume_id, "reviewed")] == feed.words()


def test_what_could_not_be_delivered_is_owed_still(bench: Bench, feed: Any) -> None:
    """Under the same request id, so that an answer that was lost makes no second result."""
    label = hand_in(bench, take(bench))
    feed.failures.append(DependencyUnavailable("away"))
    with pytest.raises(DependencyUnavailable):
        deliver_pending(bench.store, feed)
    with bench.store.read() as uow:
        (owed,) = uow.outbox.pending(limit=9)
    drain(bench, feed)
    assert [f"{label.submission_id}.corrected.{owed.version}"] == [each.request_id for each in feed.sent]


def test_what_changes_during_a_delivery_is_owed_again(bench: Bench, feed: Any) -> None:
    """The withdrawal that came while the label was on its way is not lost."""
    label = hand_in(bench, take(bench))
    send = feed.publish

    def meanwhile(project_id: str, delivery: PublishRequest) -> None:
        feed.publish = send
        withdraw(bench, label)
        send(project_id, delivery)

    feed.publish = meanwhile
    drain(bench, feed)
    assert [(label.mask_volume_id, "corrected"), (label.mask_volume_id, "retracted")] == feed.words()


def test_what_inference_refuses_holds_nobody_else_up(bench: Bench, feed: Any) -> None:
    """It is given up, said in the project's history, and the next is delivered."""
    hand_in(bench, take(bench))
    bench.later(minutes=1)
    other = hand_in(bench, take(bench))
    feed.failures.append(NotFound("the mask was erased"))
    drain(bench, feed)
    with bench.store.read() as uow:
        kinds = [event.kind for event in uow.events.after(bench.project_id, 0, limit=99)]
    assert [other.mask_volume_id] == [each.mask_volume_id for each in feed.sent]
    assert 1 == kinds.count("result-not-published")


def test_one_that_fails_for_an_unforeseen_reason_holds_nobody_else_up(bench: Bench, feed: Any) -> None:
    """The others are delivered past it; it stays owed, and is delivered once that is possible."""
    poisoned = hand_in(bench, take(bench))
    bench.later(minutes=1)
    other = hand_in(bench, take(bench))
    feed.poison.add(poisoned.mask_volume_id)
    bench.later(minutes=1)
    assert 1 == deliver_pending(bench.store, feed)
    assert [(other.mask_volume_id, "corrected")] == feed.words()
    with pytest.raises(InternalError):
        deliver_pending(bench.store, feed)
    feed.poison.clear()
    drain(bench, feed)
    assert [(other.mask_volume_id, "corrected"), (poisoned.mask_volume_id, "corrected")] == feed.words()


def test_what_failed_last_comes_last(bench: Bench, feed: Any) -> None:
    """Also where the failure looked as if everybody had to wait."""
    hand_in(bench, take(bench))
    bench.later(minutes=1)
    other = hand_in(bench, take(bench))
    bench.later(minutes=1)
    feed.failures.append(DependencyUnavailable("busy with this one"))
    with pytest.raises(DependencyUnavailable):
        deliver_pending(bench.store, feed)
    drain(bench, feed)
    assert other.mask_volume_id == feed.sent[0].mask_volume_id


@pytest.mark.parametrize("taken_back", [False, True], ids=["corrected anew", "taken back"])
def test_a_delivery_that_comes_too_late_is_outdone(bench: Bench, feed: Any, taken_back: bool) -> None:
    """Another scheduler has delivered the newer word before: it is told again, so that it stands."""
    first = hand_in(bench, take(bench))
    drain(bench, feed)
    review(bench, first, ACCEPT)
    send = feed.publish

    def late(project_id: str, delivery: PublishRequest) -> None:
        """This scheduler stands still while the label changes and the other one delivers."""
        feed.publish = send
        if taken_back:
            withdraw(bench, first)
        else:
            lease = take_again(bench, first.case_id)
            hand_in(bench, lease, receipt=other_mask("second", lease))
        drain(bench, feed)
        send(project_id, delivery)

    feed.publish = late
    drain(bench, feed)
    last = (first.mask_volume_id, "retracted") if taken_back else ("second", "corrected")
    assert [last, (first.mask_volume_id, "reviewed"), last] == feed.words()[1:]


def test_nothing_is_decided_where_nothing_counts_and_nothing_was_delivered() -> None:
    """A case without a label, and one whose label was taken back, owe nothing."""
    fields = {"project_id": "p", "case_id": "c", "version": 3}
    taken_back = PublishedResult(submission_id="s", mask_volume_id="m", origin="corrected", retracted=True)
    assert decide_request(OutboxEntry(**fields, published=None), None) is None
    assert decide_request(OutboxEntry(**fields, published=taken_back), None) is None
