"""What the scheduler's state promises of projects, rounds, events and requests."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
import sqlalchemy as sa
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from rekindle.errors import AlreadyExists, VersionConflict
from rekindle.vocabulary import Digest, Modality, Organ, RunPackage, RunResult, RunState
from rekindle_scheduler.domain.enums import CaseState, ProjectState, RoundState
from rekindle_scheduler.domain.events import Event, EventKind
from rekindle_scheduler.domain.policy import MinutesBudget, Policy
from rekindle_scheduler.domain.records import Round, TrainingRun
from rekindle_scheduler.state import State, database_now, open_state
from rekindle_scheduler.state.tables import metadata, projects
from rekindle_servicekit.database import make_engine
from rekindle_servicekit.idempotency import RequestKey
from rekindle_servicekit.principal import Principal
from scheduler_rows import ALICE, BOB, PROJECT, START, Clock, a_round, add_cases, lease_next, migrated, volume
from servers.fixtures import MakeDatabase


def test_the_migrations_make_the_tables_of_the_code(make_database: MakeDatabase) -> None:
    """Nothing differs between the migrated schema and the one that the repositories use."""
    url = make_database(migrated)
    open_state(url).close()
    engine = make_engine(url)
    with engine.connect() as connection:
        differences = compare_metadata(MigrationContext.configure(connection), metadata)
    engine.dispose()
    assert [] == [each for each in differences if "alembic_version" not in str(each)]


def test_the_moment_is_the_databases_in_utc(store: State) -> None:
    """To the millisecond, and with its zone."""
    before = datetime.now(UTC) - timedelta(milliseconds=2)
    with store.engine.connect() as connection:
        moment = database_now(connection)
    assert before <= moment <= datetime.now(UTC) + timedelta(milliseconds=2)


def test_a_project_comes_back_as_it_was_stored(store: State) -> None:
    """Policy, organs and times survive."""
    with store.read() as uow:
        project = uow.projects.get(PROJECT)
    assert Policy(sizing=MinutesBudget(minutes_per_round=90.0)) == project.policy
    assert (Organ(id="liver", label_value=1),) == project.organs
    assert START == project.create_time


def test_modalities_are_stored_as_the_release_before_reads_them(store: State) -> None:
    """In lower case, as tables are shared during an upgrade; both spellings are read."""
    column = sa.select(projects.c.target_modality)
    with store.engine.connect() as connection:
        assert "ct" == connection.execute(column).scalar_one()
    with store.engine.begin() as connection:
        connection.execute(sa.update(projects).values(target_modality="CT"))
    with store.read() as uow:
        assert Modality.CT == uow.projects.get(PROJECT).target_modality


def test_a_round_comes_back_with_its_run(store: State) -> None:
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


def test_a_round_is_changed_by_one_of_two(store: State) -> None:
    """What was read in an earlier state cannot be written any more."""
    with store.write() as uow:
        uow.rounds.add(a_round(1, RoundState.SELECTING))
    with store.write() as uow:
        stale = uow.rounds.get(PROJECT, 1)
        # Another scheduler's update, as it looks where transactions really overlap.
        uow.rounds._connection.exec_driver_sql("UPDATE rounds SET version = version + 1")
        with pytest.raises(VersionConflict):
            uow.rounds.update(stale)


def test_the_head_is_the_newest_round(store: State) -> None:
    """Its number and whether it takes labels; none before the first, and never round 0."""
    heads = []
    for number, state in ((0, RoundState.TRAINING), (1, RoundState.SELECTING), (2, RoundState.PROMOTING)):
        with store.write() as uow:
            heads.append(uow.rounds.head(PROJECT))
            uow.rounds.add(a_round(number, state))
    with store.read() as uow:
        heads.append(uow.rounds.head(PROJECT))
    assert [None, (0, False), (1, True), (2, False)] == [head and (head.number, head.is_open) for head in heads]


def test_the_overview_counts_over_all_projects(store: State, clock: Clock) -> None:
    """States as they are at the moment, when the oldest ready case was registered, live leases."""
    add_cases(store, 2)
    clock.now += timedelta(minutes=7)
    with store.write() as uow:
        uow.cases.add(PROJECT, volume("later"), "", held_out=False)
        lease_next(uow)
        overview = uow.tallies.overview()
    assert (1, 1, 1) == tuple(overview.cases[s] for s in (CaseState.READY, CaseState.LEASED, CaseState.REGISTERED))
    assert (START, 1) == (overview.oldest_ready, overview.leases)
    with store.write() as uow:
        uow.projects.update(replace(uow.projects.get(PROJECT), state=ProjectState.ACTIVE))
        assert {PROJECT: 1} == dict(uow.tallies.overview().rounds)


def test_events_have_growing_cursors(store: State) -> None:
    """And are read from behind any of them."""
    told = (EventKind.PROJECT_CREATED, EventKind.PROJECT_STARTED, EventKind.ROUND_OPENED)
    with store.write() as uow:
        for kind in told:
            event = Event(project_id=PROJECT, kind=kind, message="something happened", details={"key": "value"})
            uow.events.add(event)
    with store.read() as uow:
        events = uow.events.after(PROJECT, 0, limit=10)
        assert [*enumerate(told, 1)] == [(event.cursor, event.kind) for event in events]
        assert ["round-opened"] == [event.kind for event in uow.events.after(PROJECT, 2, limit=10)]
        assert {"key": "value"} == events[0].details


def test_numbers_of_an_event_are_delivered_as_texts(store: State) -> None:
    """Seconds with one decimal, among the other details."""
    with store.write() as uow:
        event = Event(
            project_id=PROJECT,
            kind=EventKind.ROUND_CLOSED,
            message="round 1 is closed",
            round=1,
            seconds=61.04,
            cases=3,
            details={"model_version_id": "m"},
        )
        uow.events.add(event)
    with store.read() as uow:
        (stored,) = uow.events.after(PROJECT, 0, limit=10)
    assert {"model_version_id": "m", "seconds": "61.0", "cases": "3"} == stored.details


def test_one_caller_is_one_annotator(store: State) -> None:
    """By issuer and subject; the display name decides nothing."""
    renamed = Principal(issuer="test", subject="alice", display_name="Dr Alice")
    with store.write() as uow:
        assert uow.annotators.find(ALICE) is None
        assert uow.annotators.find_or_add(ALICE) == uow.annotators.find_or_add(renamed)
        assert uow.annotators.find_or_add(ALICE) != uow.annotators.find_or_add(BOB)


def test_an_answered_request_is_remembered_for_its_caller(store: State) -> None:
    """Another caller may use the same id; the same caller may not for another request."""
    with store.write() as uow:
        uow.requests.add(RequestKey.of(ALICE, "Method", "id-1", b"request"), b"response")
    with store.write() as uow:
        assert b"response" == uow.requests.find(RequestKey.of(ALICE, "Method", "id-1", b"request"))
        assert uow.requests.find(RequestKey.of(BOB, "Method", "id-1", b"request")) is None
        with pytest.raises(AlreadyExists):
            uow.requests.find(RequestKey.of(ALICE, "Method", "id-1", b"another request"))
