"""What the scheduler's state promises of predictions that are to be made."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import sqlalchemy as sa
from rekindle_scheduler.domain.enums import PredictionState
from rekindle_scheduler.domain.ids import ModelVersionId, SubmissionId, VolumeId
from rekindle_scheduler.domain.records import PredictionTask
from rekindle_scheduler.state import State
from scheduler_rows import PROJECT, START, Clock, add_cases, coarse_label, task


def test_predictions_are_claimed_once_and_again_after_the_claim(store: State, clock: Clock) -> None:
    """The pool first, no task twice while the claim lasts, all of it again afterwards."""
    first, second, third = add_cases(store, 3, predicted=False)
    version, until = ModelVersionId("model-2"), START + timedelta(seconds=20)
    with store.write() as uow:
        uow.predictions.enqueue([task(first, 0), task(second, 1, in_pool=True), task(third, 2)])
        assert [second, first] == [t.case_id for t in uow.predictions.claim(PROJECT, version, limit=2, until=until)]
        assert [third] == [t.case_id for t in uow.predictions.claim(PROJECT, version, limit=2, until=until)]
        assert [] == uow.predictions.claim(PROJECT, version, limit=2, until=until)
    clock.now += timedelta(seconds=21)
    with store.write() as uow:
        assert 3 == len(uow.predictions.claim(PROJECT, version, limit=9, until=until))


def test_queueing_many_predictions_takes_few_statements(store: State) -> None:
    """300 cases whose tasks were skipped once, in a handful: others wait for the project meanwhile."""
    case_ids = add_cases(store, 300)
    tasks = [task(case_id, rank) for rank, case_id in enumerate(case_ids)]
    with store.write() as uow:
        uow.predictions.enqueue(tasks)
        assert 300 == uow.predictions.skip_others(PROJECT, ModelVersionId("model-3"))
    seen: list[str] = []

    def note(_connection: object, _cursor: object, statement: str, *_: object) -> None:
        seen.append(statement)

    with store.write() as uow:
        sa.event.listen(store.engine, "before_cursor_execute", note)
        uow.predictions.enqueue(tasks)
        sa.event.remove(store.engine, "before_cursor_execute", note)
        assert len(seen) < 10
        claimed = uow.predictions.claim(PROJECT, ModelVersionId("model-2"), limit=1000, until=START)
    assert case_ids == [each.case_id for each in claimed]


def test_what_was_not_tried_is_as_if_it_had_not_been_claimed(store: State, clock: Clock) -> None:
    """An attempt counts where its task is released as tried, and not where it is released as not tried."""
    (case_id,) = add_cases(store, 1)
    with store.write() as uow:
        uow.predictions.enqueue([task(case_id, 0)])
    for were_tried, expected in ((False, 0), (True, 1), (False, 1)):
        with store.write() as uow:
            claimed = uow.predictions.claim(PROJECT, ModelVersionId("model-2"), limit=9, until=START)
            uow.predictions.release(claimed, were_tried=were_tried)
        with store.write() as uow:
            (found,) = uow.predictions.claim(PROJECT, ModelVersionId("model-2"), limit=9, until=START)
            uow.predictions.release([found], were_tried=False)
        assert expected == found.attempts


def test_the_labels_of_a_version_are_shown_again(store: State) -> None:
    """Of cases that it has predicted and that are not labelled; the others keep what they show."""
    case_ids = add_cases(store, 4)
    version = ModelVersionId("model-2")
    with store.write() as uow:
        tasks = [task(case_id, rank) for rank, case_id in enumerate(case_ids[:3])]
        uow.predictions.enqueue(tasks)
        for each in tasks[:2]:
            uow.predictions.finish(replace(each, state=PredictionState.DONE), coarse_label(version, each.case_id))
        uow.cases.set_submission(case_ids[1], SubmissionId("submission"))
        uow.cases.show_labels_of(PROJECT, version)
        shown = [uow.cases.get(PROJECT, case_id).coarse_label for case_id in case_ids]
    assert coarse_label(version, case_ids[0]) == shown[0]
    assert ["model-2", "model-1", "model-1", "model-1"] == [each and each.model_version_id for each in shown]


def test_a_prediction_that_was_queued_meanwhile_stays_as_it_is(store: State) -> None:
    """Two schedulers that queue the same cases at a time do no harm: what is done is not to be done again."""
    first, second = add_cases(store, 2)
    version = ModelVersionId("model-2")
    with store.write() as uow:
        uow.predictions.enqueue([task(first, 0)])
        uow.predictions.finish(replace(task(first, 0), state=PredictionState.DONE), coarse_label(version, first))
        uow.predictions.enqueue([task(first, 5), task(second, 6)])
        claimed = uow.predictions.claim(PROJECT, version, limit=9, until=START)
        assert [second] == [each.case_id for each in claimed]


def test_a_skipped_prediction_can_be_queued_again(store: State) -> None:
    """As when an older version serves again after a roll-back."""
    (case_id,) = add_cases(store, 1)
    version = ModelVersionId("model-2")
    with store.write() as uow:
        uow.predictions.enqueue([task(case_id, 0)])
        assert 0 == uow.tallies.predictions(PROJECT, version).missing
        uow.predictions.skip_others(PROJECT, ModelVersionId("model-3"))
        assert 1 == uow.tallies.predictions(PROJECT, version).missing
        uow.predictions.enqueue([task(case_id, 0)])
        assert 1 == uow.tallies.predictions(PROJECT, version).pending


def test_a_finished_prediction_is_found_by_its_mask(store: State) -> None:
    """Also after a newer version has replaced the coarse label that is shown."""
    (case_id,) = add_cases(store, 1, predicted=False)
    label = coarse_label("model-2", "v0")
    with store.write() as uow:
        uow.predictions.enqueue([task(case_id, 0)])
        done = task(case_id, 0)
        uow.predictions.finish(
            PredictionTask(
                project_id=PROJECT,
                case_id=case_id,
                model_version_id=done.model_version_id,
                rank=0,
                in_pool=False,
                state=PredictionState.DONE,
            ),
            label,
        )
        assert label == uow.predictions.label_of_mask(case_id, label.mask_volume_id)
        assert uow.predictions.label_of_mask(case_id, VolumeId("another")) is None
