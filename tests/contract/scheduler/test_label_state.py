"""What the scheduler keeps of drafts, sessions, corrections and reviews, on every database that it runs on."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from importlib import import_module

import pytest
import sqlalchemy as sa
from rekindle.errors import InvalidInput, LeaseLost, NotFound
from rekindle_scheduler.domain.enums import CaseState, ReviewState, RoundState
from rekindle_scheduler.domain.ids import CaseId, DraftId, ProjectId, SubmissionId
from rekindle_scheduler.state import SubmissionFilter, open_state
from rekindle_scheduler.usecases import drafts, sessions
from rekindle_servicekit.database import make_engine
from scheduler_labels import ACCEPT, hand_in, other_mask, review, save, take, take_again, take_up
from scheduler_ports import ALICE, BOB, START, Bench, label, measured, states
from servers.fixtures import MakeDatabase


def migrated(url: str) -> None:
    """The schema of a new database."""
    open_state(url).close()


@pytest.fixture
def bench(make_database: MakeDatabase) -> Iterator[Bench]:
    """A round of three cases on either database."""
    bench = Bench(url=make_database(migrated))
    bench.annotating("v1", "v2", "v3")
    yield bench
    bench.store.close()


def test_drafts_are_kept_replaced_and_listed(bench: Bench) -> None:
    """As they were saved; in the order of their beginning, page by page; the newest on a case first of all."""
    first, second = take(bench), take(bench)
    bench.later(minutes=10)
    one = save(bench, first, note="one", time_segments=(measured(START, 60.5),)).draft
    bench.later(seconds=1)
    two = save(bench, second).draft
    bench.later(seconds=1)
    one = save(bench, first, note="one again").draft
    with bench.store.write() as uow:
        assert one == uow.drafts.get(bench.project_id, one.draft_id) == uow.drafts.of_lease(first.lease.lease_id)
        page = uow.drafts.page(bench.project_id, one.annotator_id, after=(START, ""), limit=1)
        assert [one] == [draft for _, draft in page]
        rest = uow.drafts.page(bench.project_id, one.annotator_id, after=page[0][0], limit=9)
        assert [two] == [draft for _, draft in rest]
        late = replace(one, draft_id=DraftId("late"), late=True, save_time=bench.now + timedelta(hours=1))
        uow.drafts.save(late)
        assert one == uow.drafts.newest(bench.project_id, one.case_id, one.annotator_id)
        uow.drafts.remove(one.draft_id)
        assert late == uow.drafts.newest(bench.project_id, one.case_id, one.annotator_id)
        with pytest.raises(NotFound):
            uow.drafts.get(ProjectId("00000000-0000-4000-8000-000000000000"), two.draft_id)


def test_time_is_booked_once_when_drafts_of_two_cases_come_at_once(bench: Bench) -> None:
    """The second waits for the first, and is refused where it would book the same minutes again."""
    first, second = take(bench), take(bench)
    bench.later(minutes=10)
    refused: list[InvalidInput] = []
    ended = threading.Event()

    def save_other() -> None:
        try:
            save(bench, second, time_segments=(measured(START, 300.0),))
        except InvalidInput as error:
            refused.append(error)
        ended.set()

    with bench.store.write() as uow:
        work = label(first, organ_states=states(liver="edited"), time_segments=(measured(START, 300.0),))
        drafts.save_draft(uow, ALICE, bench.project_id, *work, note="", extend=False)
        thread = threading.Thread(target=save_other)
        thread.start()
        assert not ended.wait(0.3)
    thread.join(30)
    assert ["TIME_NOT_PLAUSIBLE"] == [error.reason for error in refused]
    with bench.store.read() as uow:
        assert [300.0] == [entry.segment.active_seconds for entry in uow.ledger.all(bench.project_id)]


def test_sessions_are_kept_and_ended(bench: Bench) -> None:
    """With their leases in the round's order; ended ones are listed only where asked for."""
    with bench.store.write() as uow:
        wish = sessions.SessionTerms(minutes=16.0, detached=True)
        details = sessions.start_session(uow, ALICE, bench.project_id, wish)
    assert isinstance(details, sessions.SessionDetails)
    with bench.store.write() as uow:
        session = details.session
        assert session == uow.sessions.get(bench.project_id, session.session_id)
        assert [0, 1] == [
            uow.cases.get(bench.project_id, lease.case_id).rank for lease in uow.leases.of_session(session.session_id)
        ]
        before = (START - timedelta(days=1), "")

        def listed(*, include_ended: bool) -> int:
            found = uow.sessions.page(
                bench.project_id, session.annotator_id, include_ended=include_ended, after=before, limit=9
            )
            return len(found)

        assert 1 == listed(include_ended=False)
        uow.sessions.end(session)
        assert (0, 1) == (listed(include_ended=False), listed(include_ended=True))


def test_the_ledger_goes_on_behind_what_a_lease_has(bench: Bench) -> None:
    """Two saves and the label: four segments in order, all of them the label's in the end."""
    details = take(bench)
    bench.later(minutes=10)
    segments = [measured(START + timedelta(minutes=number), 30.0) for number in range(4)]
    save(bench, details, time_segments=tuple(segments[:2]))
    save(bench, details, time_segments=tuple(segments[:3]))
    stored = hand_in(bench, details, time_segments=tuple(segments))
    with bench.store.read() as uow:
        entries = uow.ledger.all(bench.project_id)
        assert segments[:3] == [entry.segment for entry in uow.ledger.of_lease(details.lease.lease_id)]
    assert sorted(segments, key=lambda each: each.start_time) == sorted(
        (entry.segment for entry in entries), key=lambda each: each.start_time
    )
    assert {stored.submission_id} == {entry.submission_id for entry in entries}


def test_what_became_of_a_label_is_kept(bench: Bench) -> None:
    """Review and withdrawal, as records; lists by state and annotator."""
    first = hand_in(bench, take(bench))
    hand_in(bench, take(bench, BOB), BOB)
    reviewed = review(bench, first, ACCEPT, comment="good").submission
    with bench.store.write() as uow:
        assert reviewed == uow.submissions.get(bench.project_id, first.submission_id)
        gone = replace(
            reviewed, review_state=ReviewState.WITHDRAWN, withdraw_time=bench.now, withdraw_reason="wrong", round=2
        )
        uow.submissions.update(gone)
        assert gone == uow.submissions.get(bench.project_id, first.submission_id)
        which = SubmissionFilter(review_states=frozenset({ReviewState.WITHDRAWN}), annotator_id=first.annotator_id)
        assert [gone] == [each for _, each in uow.submissions.page(bench.project_id, which, after=0, limit=9)]
        with pytest.raises(NotFound):
            uow.submissions.get(bench.project_id, SubmissionId("nobody"))


def test_a_snapshot_freezes_the_labels_that_count(bench: Bench) -> None:
    """Not the superseded one, not one that was left out, and never again under a later round."""
    first, second = hand_in(bench, take(bench)), hand_in(bench, take(bench))
    again = take_again(bench, first.case_id)
    newer = hand_in(bench, again, receipt=other_mask("m2", again))
    with bench.store.write() as uow:
        uow.submissions.freeze(bench.project_id, 1, [second.case_id])
        uow.submissions.freeze(bench.project_id, 2, [])
        rounds = {each.submission_id: each.snapshot_round for each in uow.submissions.of_case(first.case_id)}
        assert {first.submission_id: 0, newer.submission_id: 1} == rounds
        assert 2 == uow.submissions.get(bench.project_id, second.submission_id).snapshot_round
        assert {first.case_id, second.case_id} == uow.submissions.frozen_cases(bench.project_id)


def test_a_snapshot_may_leave_out_any_number_of_cases(bench: Bench) -> None:
    """More than a database takes parameters in one statement; what an earlier snapshot holds stays there."""
    first, second, third = (hand_in(bench, take(bench)) for _ in range(3))
    with bench.store.write() as uow:
        uow.submissions.freeze(bench.project_id, 1, [second.case_id, third.case_id])
        others = [CaseId(f"case-{number}") for number in range(70_000)]
        uow.submissions.freeze(bench.project_id, 2, [first.case_id, *others, third.case_id])
        found = [uow.submissions.get(bench.project_id, each.submission_id) for each in (first, second, third)]
    assert [1, 2, 0] == [each.snapshot_round for each in found]


def test_labels_are_counted_once_a_case(bench: Bench) -> None:
    """A correction in the same round is no second label, one in a later round is no second case."""
    first = hand_in(bench, take(bench))
    again = take_again(bench, first.case_id)
    hand_in(bench, again, receipt=other_mask("m2", again))
    with bench.store.write() as uow:
        uow.rounds.get(bench.project_id, 1)
        uow.rounds.update(replace(uow.rounds.get(bench.project_id, 1), state=RoundState.TRAINING))
    again = take_again(bench, first.case_id)
    hand_in(bench, again, receipt=other_mask("m3", again))
    with bench.store.read() as uow:
        counted = {each.number: (each.labelled_cases, each.labelled_total) for each in uow.rounds.all(bench.project_id)}
        assert {0: (0, 0), 1: (1, 1), 2: (1, 1)} == counted
        assert (0, 1) == tuple(uow.tallies.cases(bench.project_id, number).round_labels for number in (1, 2))


def test_cases_in_review_are_counted_and_not_predicted(bench: Bench) -> None:
    """They are open, neither ready nor leased, and no version is asked for them."""
    details = take(bench)
    with bench.store.write() as uow:
        uow.leases.end(details.lease, details.lease.state.SUBMITTED)
        uow.cases.set_pending(details.case.case_id, SubmissionId("waits"))
        assert CaseState.IN_REVIEW == uow.cases.get(bench.project_id, details.case.case_id).state
        tally = uow.tallies.cases(bench.project_id, 1)
        assert (3, 1, 2, 0) == (tally.open, tally.in_review, tally.ready, tally.leased)
        assert 1 == uow.tallies.counts(bench.project_id).in_review
        other = uow.cases.without_task(bench.project_id, details.lease.coarse_model_version_id or "another")  # type: ignore[arg-type]
        assert details.case.case_id not in {case.case_id for case in other}
        assert 2 == uow.tallies.predictions(bench.project_id, None).missing


def test_one_of_many_tools_holds_a_lease(bench: Bench) -> None:
    """Six take it up at once: every token is new, and only the newest saves a draft in place."""
    details = take(bench)
    taken: list[drafts.ResumedLease] = []

    def go_on() -> None:
        taken.append(take_up(bench, details))

    threads = [threading.Thread(target=go_on) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    tokens = sorted(each.details.lease.fencing_token for each in taken)
    assert list(range(2, 8)) == tokens
    late = [save(bench, each.details).draft.late for each in sorted(taken, key=_token)]
    assert [True] * 5 + [False] == late


def test_nobody_takes_up_what_somebody_else_holds(bench: Bench) -> None:
    """Also where the lease has run out since."""
    details = take(bench)
    bench.later(hours=5)
    assert details.case.case_id == take(bench, BOB).case.case_id
    with pytest.raises(LeaseLost):
        take_up(bench, details)


def test_labels_from_before_corrections_know_their_snapshot(make_database: MakeDatabase) -> None:
    """The migration finds the first snapshot at or behind the label's round; drafts are in none."""
    url = make_database(migrated)
    bench = Bench(url=url)
    bench.annotating("v1", "v2", "v3")
    first, second = hand_in(bench, take(bench)), hand_in(bench, take(bench))
    bench.store.close()
    engine = make_engine(url)
    with engine.begin() as connection:
        connection.exec_driver_sql(f"UPDATE submissions SET round = 3 WHERE submission_id = '{second.submission_id}'")
        for number in (0, 2):
            connection.execute(
                sa.text("INSERT INTO snapshots (project_id, round, digest, record) VALUES (:p, :r, 'd', '{}')"),
                {"p": bench.project_id, "r": number},
            )
        module = import_module("rekindle_scheduler.migrations.versions.0003_annotation")
        connection.exec_driver_sql(module.FIND_SNAPSHOTS)
        rows = connection.exec_driver_sql("SELECT submission_id, snapshot_round FROM submissions").all()
    engine.dispose()
    assert {first.submission_id: 2, second.submission_id: 0} == dict(tuple(row) for row in rows)


def _token(taken: drafts.ResumedLease) -> int:
    return taken.details.lease.fencing_token
