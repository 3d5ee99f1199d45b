"""Results that are owed, on every database that the scheduler runs on."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from rekindle_scheduler.domain.outbox import PublishedResult, ResultOrigin
from rekindle_scheduler.state import open_state
from scheduler_labels import hand_in, take
from scheduler_ports import Bench
from servers.fixtures import MakeDatabase


@pytest.fixture
def bench(make_database: MakeDatabase) -> Iterator[Bench]:
    bench = Bench(url=make_database(lambda url: open_state(url).close()))
    bench.annotating("v1", "v2")
    yield bench
    bench.store.close()


def test_what_is_owed_is_kept_until_its_own_version_is_settled(bench: Bench) -> None:
    """The longest owed first; a change that came meanwhile keeps it owed, with what was delivered beside it."""
    labels = [hand_in(bench, take(bench))]
    bench.later(minutes=1)
    labels.append(hand_in(bench, take(bench)))
    published = PublishedResult(
        submission_id=labels[0].submission_id,
        mask_volume_id=labels[0].mask_volume_id,
        origin=ResultOrigin.CORRECTED,
    )
    with bench.store.write() as uow:
        first, second = uow.outbox.pending(limit=9)
        uow.outbox.enqueue(bench.project_id, first.case_id)
        uow.outbox.mark_delivered(first, published)
        uow.outbox.mark_delivered(second, None)
    with bench.store.write() as uow:
        (again,) = uow.outbox.pending(limit=9)
        uow.outbox.mark_delivered(again, published)
    with bench.store.read() as uow:
        assert [] == uow.outbox.pending(limit=9)
    assert [label.case_id for label in labels] == [first.case_id, second.case_id]
    assert (first.case_id, first.version + 1, published) == (again.case_id, again.version, again.published)
