"""What the scheduler's state promises, on every database that it runs on."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import sqlalchemy as sa
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from rekindle.errors import AlreadyExists, NotFound, VersionConflict
from rekindle_scheduler.adapters.sql.store import SqlStore, database_now, open_store
from rekindle_scheduler.adapters.sql.tables import metadata
from rekindle_scheduler.domain.ids import CaseId, Digest, ModelVersionId, ProjectId, SubmissionId, VolumeId
from rekindle_scheduler.domain.policy import MinutesBudget, Policy
from rekindle_scheduler.domain.records import CoarseLabel, Organ, OrganQuality, PredictionTask, Project, Round
from rekindle_scheduler.domain.runs import RunPackage, RunResult, TrainingRun
from rekindle_scheduler.domain.words import (
    CaseMark,
    CaseState,
    LeaseState,
    Modality,
    PredictionState,
    ProjectState,
    RoundState,
    RunState,
)
from rekindle_scheduler.ports import CaseFilter, Volume
from rekindle_scheduler.usecases import leases
from rekindle_scheduler.usecases.purges import Patient, purge_group
from rekindle_servicekit.database import make_engine
from rekindle_servicekit.principal import Principal
from servers.fixtures import MakeDatabase

PROJECT = ProjectId("6f1c0f2e-3a39-4bd2-9f3e-3b8f1f0d6a01")
START = datetime(2026, 3, 2, 8, 0, tzinfo=UTC)
ALICE = Principal(issuer="test", subject="alice", display_name="Alice")
BOB = Principal(issuer="test", subject="bob", display_name="Bob")


@dataclass
class Clock:
    """The database's clock, held still."""

    now: datetime = field(default=START)

    def __call__(self, _: sa.Connection) -> datetime:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


def migrated(url: str) -> None:
    """The schema of a new database."""
    open_store(url).close()


@pytest.fixture
def store(make_database: MakeDatabase, clock: Clock) -> Iterator[SqlStore]:
    store = open_store(make_database(migrated), clock)
    add_project(store)
    yield store
    store.close()


def add_project(store: SqlStore) -> None:
    """PROJECT."""
    with store.write() as uow:
        uow.projects.add(
            Project(
                project_id=PROJECT,
                display_name="Test",
                organs=(Organ(id="liver", label_value=1),),
                target_modality=Modality.CT,
                policy=Policy(sizing=MinutesBudget(minutes_per_round=90.0)),
                create_time=START,
            )
        )


def add_cases(store: SqlStore, count: int, *, predicted: bool = True) -> list[CaseId]:
    """Cases of round 1 in the order of their ranks."""
    with store.write() as uow:
        added = [uow.cases.add(PROJECT, volume(f"v{index}"), "", held_out=False).case_id for index in range(count)]
        uow.cases.set_round(added, 1)
        for case_id in added:
            if predicted:
                uow.cases.set_coarse_label(case_id, coarse_label("model-1", case_id))
        if uow.rounds.newest(PROJECT) is None:
            uow.rounds.add(a_round(1, RoundState.ANNOTATING))
    return added


def volume(name: str) -> Volume:
    return Volume(volume_id=VolumeId(name), is_image=True, modality=Modality.CT, digest=Digest(f"digest {name}"))


def coarse_label(version: str, name: str) -> CoarseLabel:
    return CoarseLabel(
        mask_volume_id=VolumeId(f"{version} of {name}"),
        mask_digest=Digest("0" * 64),
        model_version_id=ModelVersionId(version),
        quality=(OrganQuality(organ_id="liver", soft_dice_confidence=None, predicted_ml=0.5),),
        predicted_minutes=7.5,
    )


def a_round(number: int, state: RoundState) -> Round:
    return Round(project_id=PROJECT, number=number, state=state, start_time=START)


def task(case_id: CaseId, rank: int, *, in_pool: bool = False) -> PredictionTask:
    return PredictionTask(
        project_id=PROJECT, case_id=case_id, model_version_id=ModelVersionId("model-2"), rank=rank, in_pool=in_pool
    )


def test_the_migrations_make_the_tables_of_the_code(make_database: MakeDatabase) -> None:
    """Nothing differs between the migrated schema and the one that the repositories use."""
    url = make_database(migrated)
    open_store(url).close()
    engine = make_engine(url)
    with engine.connect() as connection:
        differences = compare_metadata(MigrationContext.configure(connection), metadata)
    engine.dispose()
    assert [] == [each for each in differences if "alembic_version" not in str(each)]


def test_the_moment_is_the_databases_in_utc(store: SqlStore) -> None:
    """To the millisecond, and with its zone."""
    before = datetime.now(UTC) - timedelta(milliseconds=2)
    with store._engine.connect() as connection:  # the clock is the one thing that needs the connection itself
        moment = database_now(connection)
    assert before <= moment <= datetime.now(UTC) + timedelta(milliseconds=2)


def test_a_project_comes_back_as_it_was_stored(store: SqlStore) -> None:
    """Policy, organs and times survive."""
    with store.read() as uow:
        project = uow.projects.get(PROJECT)
    assert Policy(sizing=MinutesBudget(minutes_per_round=90.0)) == project.policy
    assert (Organ(id="liver", label_value=1),) == project.organs
    assert START == project.create_time


def test_a_round_comes_back_with_its_run(store: SqlStore) -> None:
    """Results and enums survive the way through JSON."""
    package = RunPackage(modality=Modality.CT, package_digest=Digest("a" * 64))
    run = TrainingRun(
        run_id="run-1",  # pyright: ignore[reportArgumentType]
        state=RunState.SUCCEEDED,
        result=RunResult(packages=(package,), weights_digest=Digest("b" * 64)),
    )
    stored = Round(project_id=PROJECT, number=3, state=RoundState.PROMOTING, start_time=START, run=run)
    with store.write() as uow:
        uow.rounds.add(stored)
    with store.read() as uow:
        assert stored == uow.rounds.get(PROJECT, 3)


def test_a_case_of_another_project_is_not_found(store: SqlStore) -> None:
    """Ids are looked up inside their project only."""
    (case_id,) = add_cases(store, 1)
    other = ProjectId("00000000-0000-4000-8000-000000000000")
    with store.read() as uow, pytest.raises(NotFound):
        uow.cases.get(other, case_id)


def test_the_next_case_is_the_first_free_one(store: SqlStore) -> None:
    """Leased, labelled and put-off cases are passed over, and so are those without a coarse label."""
    first, second, third, fourth = add_cases(store, 4)
    with store.write() as uow:
        assert first == _lease(uow).case.case_id
        uow.cases.set_mark(second, CaseMark.PUT_OFF)
        assert third == _lease(uow).case.case_id
        assert fourth == _lease(uow).case.case_id
        assert uow.cases.next_in_round(PROJECT, 1) is None


def test_the_next_case_is_found_by_an_index(tmp_path: Path, clock: Clock) -> None:
    """No scan over the project's cases, and no sort; PostgreSQL, which plans by statistics, is asked elsewhere."""
    store = open_store(f"sqlite:///{tmp_path / 'state.sqlite3'}", clock)
    add_project(store)
    add_cases(store, 3)
    with store.write() as uow:
        connection = uow.cases._connection
        statements: list[str] = []
        sa.event.listen(connection, "before_cursor_execute", lambda *a: statements.append(a[2]))
        uow.cases.next_in_round(PROJECT, 1)
        plan = connection.exec_driver_sql(
            "EXPLAIN QUERY PLAN " + statements[0].replace("?", "1").split("LIMIT")[0] + " LIMIT 1"
        ).all()
    store.close()
    assert any("USING INDEX ix_cases_" in str(row) for row in plan)
    assert not any("SCAN" in str(row) or "TEMP B-TREE" in str(row) for row in plan)


def test_concurrent_callers_never_get_the_same_case(store: SqlStore) -> None:
    """Eight threads lease eight cases: eight different ones."""
    add_cases(store, 8)
    taken: list[CaseId] = []

    def take(name: str) -> None:
        with store.write() as uow:
            outcome = leases.lease_next_case(
                uow, Principal(issuer="test", subject=name, display_name=name), PROJECT, None
            )
            assert isinstance(outcome, leases.LeaseDetails)
            taken.append(outcome.case.case_id)

    threads = [threading.Thread(target=take, args=(f"annotator {index}",)) for index in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert 8 == len(set(taken))


def test_erasing_waits_for_whoever_is_given_the_case_at_the_moment(store: SqlStore) -> None:
    """A lease that is granted while a purge begins is seen by it, and ends with it."""
    (case_id,) = add_cases(store, 1)
    with store.write() as uow:
        grouped = uow.cases.add(PROJECT, volume("grouped"), "group", held_out=False).case_id
        uow.cases.set_coarse_label(grouped, coarse_label("model-1", grouped))

    def purge(patient: Patient) -> None:
        with store.write() as uow:
            purge_group(uow, BOB, PROJECT, patient, reason="asked for")

    for case, patient in ((case_id, Patient(case_id=case_id)), (grouped, Patient(group_key="group"))):
        eraser = threading.Thread(target=purge, args=(patient,))
        with store.write() as uow:
            granted = leases.lease_case(uow, ALICE, PROJECT, case, None, 0)
            eraser.start()
            eraser.join(0.3)
        eraser.join()
        with store.read() as uow:
            assert LeaseState.RELEASED == uow.leases.get(PROJECT, granted.lease.lease_id).state
            assert CaseState.PURGED == uow.cases.get(PROJECT, case).state


def test_an_expired_lease_frees_its_case_under_a_greater_token(store: SqlStore, clock: Clock) -> None:
    """The next lease of the case has the next fencing token, and the old one shows as expired."""
    add_cases(store, 1)
    with store.write() as uow:
        old = _lease(uow, ALICE)
    clock.now += timedelta(hours=4)
    with store.write() as uow:
        new = _lease(uow, BOB)
        assert (old.lease.fencing_token + 1, old.case.case_id) == (new.lease.fencing_token, new.case.case_id)
        assert "expired" == uow.leases.get(PROJECT, old.lease.lease_id).state
        assert [] == leases.my_leases(uow, ALICE, PROJECT)


def test_a_round_is_changed_by_one_of_two(store: SqlStore) -> None:
    """What was read in an earlier state cannot be written any more."""
    with store.write() as uow:
        uow.rounds.add(a_round(1, RoundState.SELECTING))
    with store.write() as uow:
        stale = uow.rounds.get(PROJECT, 1)
        # Another scheduler's update, as it looks where transactions really overlap.
        uow.rounds._connection.exec_driver_sql("UPDATE rounds SET version = version + 1")
        with pytest.raises(VersionConflict):
            uow.rounds.update(stale)


def test_predictions_are_claimed_once_and_again_after_the_claim(store: SqlStore, clock: Clock) -> None:
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


def test_queueing_many_predictions_takes_few_statements(store: SqlStore) -> None:
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


def test_what_was_not_tried_is_as_if_it_had_not_been_claimed(store: SqlStore, clock: Clock) -> None:
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


def test_very_many_cases_are_held_out_at_once(store: SqlStore) -> None:
    """70,000 ids are more than one statement of PostgreSQL takes; those that are none change nothing."""
    first, second = add_cases(store, 2)
    others = [CaseId(f"no case {number}") for number in range(70_000)]
    with store.write() as uow:
        uow.cases.set_held_out([first, *others])
        assert (True, False) == tuple(uow.cases.get(PROJECT, each).held_out for each in (first, second))


def test_the_head_is_the_newest_round(store: SqlStore) -> None:
    """Its number and whether it takes labels; none before the first, and never round 0."""
    heads = []
    for number, state in ((0, RoundState.TRAINING), (1, RoundState.SELECTING), (2, RoundState.PROMOTING)):
        with store.write() as uow:
            heads.append(uow.rounds.head(PROJECT))
            uow.rounds.add(a_round(number, state))
    with store.read() as uow:
        heads.append(uow.rounds.head(PROJECT))
    assert [None, (0, False), (1, True), (2, False)] == [head and (head.number, head.is_open) for head in heads]


def test_open_cases_are_found_without_counting_all(store: SqlStore) -> None:
    """Leased ones are open, those that are put off or labelled are not; of a round only its own count."""
    first, second, third = add_cases(store, 3)
    with store.write() as uow:
        leases.lease_case(uow, ALICE, PROJECT, first, None, 0)
        uow.cases.set_mark(second, CaseMark.PUT_OFF)
        assert (2, 0) == tuple(uow.tallies.open_in_round(PROJECT, number) for number in (1, 2))
        assert 2 == uow.tallies.cases(PROJECT, 1).round_open
        uow.cases.set_mark(third, CaseMark.PUT_OFF)
        assert uow.tallies.has_open(PROJECT)
        uow.cases.set_submission(first, SubmissionId("submission"))
        assert not uow.tallies.has_open(PROJECT)


def test_cases_are_read_a_page_at_a_time(store: SqlStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each once, as registered, however many pages they fill; without those that are labelled or have a task."""
    monkeypatch.setattr("rekindle_scheduler.adapters.sql.cases._AT_ONCE", 2)
    first, second, third, fourth, fifth = add_cases(store, 5)
    with store.write() as uow:
        uow.cases.set_submission(second, SubmissionId("submission"))
        uow.predictions.enqueue([task(fourth, 0)])
    with store.read() as uow:
        unlabelled = [case.case_id for case in uow.cases.unlabelled(PROJECT)]
        waiting = [case.case_id for case in uow.cases.without_task(PROJECT, ModelVersionId("model-2"))]
        labelled = [case.case_id for case in uow.cases.labelled(PROJECT)]
    assert [first, third, fourth, fifth] == unlabelled
    assert [first, third, fifth] == waiting
    assert [second] == labelled


def test_held_out_cases_are_found_labelled_or_not(store: SqlStore) -> None:
    """And no others."""
    first, second, _ = add_cases(store, 3)
    with store.write() as uow:
        uow.cases.set_held_out([first, second])
        uow.cases.set_submission(second, SubmissionId("submission"))
        assert [first, second] == [case.case_id for case in uow.cases.held_out(PROJECT)]


def test_places_are_kept_from_where_the_last_ones_ended(store: SqlStore) -> None:
    """Written in two parts, listed as one order; what stays as it is is not written."""
    first, second, third = add_cases(store, 3)
    with store.write() as uow:
        uow.cases.set_ordering([third, first], first=0)
        uow.cases.set_ordering([second], first=2)
        listed = uow.cases.page(PROJECT, CaseFilter(), ranked=True, after=(-1, -1), limit=9)
    assert [third, first, second] == [case.case_id for _, case in listed]


def test_the_labels_of_a_version_are_shown_again(store: SqlStore) -> None:
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


def test_a_prediction_that_was_queued_meanwhile_stays_as_it_is(store: SqlStore) -> None:
    """Two schedulers that queue the same cases at a time do no harm: what is done is not to be done again."""
    first, second = add_cases(store, 2)
    version = ModelVersionId("model-2")
    with store.write() as uow:
        uow.predictions.enqueue([task(first, 0)])
        uow.predictions.finish(replace(task(first, 0), state=PredictionState.DONE), coarse_label(version, first))
        uow.predictions.enqueue([task(first, 5), task(second, 6)])
        claimed = uow.predictions.claim(PROJECT, version, limit=9, until=START)
        assert [second] == [each.case_id for each in claimed]


def test_a_skipped_prediction_can_be_queued_again(store: SqlStore) -> None:
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


def test_a_finished_prediction_is_found_by_its_mask(store: SqlStore) -> None:
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


def test_the_states_of_the_filter_are_those_of_the_cases(store: SqlStore) -> None:
    """Each filter lists exactly the cases that show its state."""
    first, second, _third, fourth = add_cases(store, 4)
    add = volume("unpredicted")
    with store.write() as uow:
        uow.cases.add(PROJECT, add, "", held_out=True)
        _lease(uow)
        uow.cases.set_mark(second, CaseMark.PUT_OFF)
        uow.cases._connection.exec_driver_sql("UPDATE cases SET submission_id = 's' WHERE volume_id = 'v2'")
        uow.cases.set_pending(fourth, SubmissionId("waiting"))
        shown = {case.case_id: case.state for case in uow.cases.all(PROJECT)}
        assert CaseState.LEASED == shown[first]
        for state in CaseState:
            listed = uow.cases.page(
                PROJECT, CaseFilter(states=frozenset({state})), ranked=False, after=(-1, -1), limit=10
            )
            assert {i for i, s in shown.items() if s == state} == {case.case_id for _, case in listed}
        assert set(CaseState) == set(shown.values()) | {CaseState.READY, CaseState.PURGED}


def test_the_overview_counts_over_all_projects(store: SqlStore, clock: Clock) -> None:
    """States as they are at the moment, when the oldest ready case was registered, live leases."""
    add_cases(store, 2)
    clock.now += timedelta(minutes=7)
    with store.write() as uow:
        uow.cases.add(PROJECT, volume("later"), "", held_out=False)
        _lease(uow)
        overview = uow.tallies.overview()
    assert (1, 1, 1) == tuple(overview.cases[s] for s in (CaseState.READY, CaseState.LEASED, CaseState.REGISTERED))
    assert (START, 1) == (overview.oldest_ready, overview.leases)
    with store.write() as uow:
        uow.projects.update(replace(uow.projects.get(PROJECT), state=ProjectState.ACTIVE))
        assert {PROJECT: 1} == dict(uow.tallies.overview().rounds)


def test_events_have_growing_cursors(store: SqlStore) -> None:
    """And are read from behind any of them."""
    with store.write() as uow:
        for kind in ("one", "two", "three"):
            uow.events.add(PROJECT, kind, "something happened", details={"key": "value"})
    with store.read() as uow:
        events = uow.events.after(PROJECT, 0, limit=10)
        assert [(1, "one"), (2, "two"), (3, "three")] == [(each.cursor, each.kind) for each in events]
        assert ["three"] == [each.kind for each in uow.events.after(PROJECT, 2, limit=10)]
        assert {"key": "value"} == events[0].details


def test_one_caller_is_one_annotator(store: SqlStore) -> None:
    """By issuer and subject; the display name decides nothing."""
    renamed = Principal(issuer="test", subject="alice", display_name="Dr Alice")
    with store.write() as uow:
        assert uow.annotators.find(ALICE) is None
        assert uow.annotators.find_or_add(ALICE) == uow.annotators.find_or_add(renamed)
        assert uow.annotators.find_or_add(ALICE) != uow.annotators.find_or_add(BOB)


def test_an_answered_request_is_remembered_for_its_caller(store: SqlStore) -> None:
    """Another caller may use the same id; the same caller may not for another request."""
    with store.write() as uow:
        uow.requests.store(ALICE, "Method", "id-1", "digest", b"response")
    with store.write() as uow:
        assert b"response" == uow.requests.remember(ALICE, "Method", "id-1", "digest")
        assert uow.requests.remember(BOB, "Method", "id-1", "digest") is None
        with pytest.raises(AlreadyExists):
            uow.requests.remember(ALICE, "Method", "id-1", "another digest")


def _lease(uow: object, principal: Principal = ALICE) -> leases.LeaseDetails:
    outcome = leases.lease_next_case(uow, principal, PROJECT, None)  # type: ignore[arg-type]
    assert isinstance(outcome, leases.LeaseDetails)
    return outcome
