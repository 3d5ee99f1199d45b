"""Annotators, tools, reviewers and rounds in any order: what always holds of labels, leases and minutes, holds."""

from __future__ import annotations

import tempfile
from collections import Counter, defaultdict
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from itertools import pairwise
from pathlib import Path
from random import Random
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from rekindle.errors import IllegalTransition, LeaseLost, PermissionDenied, VersionConflict
from rekindle.vocabulary import TimeSegment
from rekindle_scheduler.actions import rounds as actions
from rekindle_scheduler.actions.services import Services, read_view
from rekindle_scheduler.domain import steps
from rekindle_scheduler.domain.enums import CaseState, LeaseState, ReviewState, RoundState
from rekindle_scheduler.domain.minutes import CLOCK_TOLERANCE
from rekindle_scheduler.domain.policy import HeldOutPolicy, ReviewPolicy
from rekindle_scheduler.domain.records import Snapshot, Submission
from rekindle_scheduler.usecases import leases, sessions
from rekindle_servicekit.principal import Principal
from scheduler_labels import ACCEPT, CARLA, REJECT, hand_in, other_mask, review, save, take_again, take_up, withdraw
from scheduler_ports import ALICE, BOB, Bench, measured

PEOPLE = (ALICE, BOB)
REFUSALS = (IllegalTransition, LeaseLost, PermissionDenied)
STEPS = 80


class Labels:
    """The use cases on a database, with a memory of everything that was acknowledged."""

    def __init__(self, folder: Path, chance: Random, *, is_reviewed: bool) -> None:
        self.bench, self.chance = Bench(folder), chance
        self.bench.annotating(
            *("v1", "v2", "v3", "v4"),
            review=ReviewPolicy(required=is_reviewed),
            held_out=HeldOutPolicy(fraction=0.3),
        )
        #: Leases as somebody got them, stale ones too.
        self.handles: list[tuple[Principal, leases.LeaseDetails]] = []
        self.sent: list[Submission] = []
        self.drafts: dict[str, int] = {}
        self.booked: list[TimeSegment] = []
        self.worked_until: dict[str, Any] = {}
        self.snapshots: dict[int, Snapshot] = {}
        self.names = iter(range(10**6))

    def step(self) -> None:
        """Somebody does something; the work itself is done most often."""
        chance = self.chance
        who, which = chance.choice(PEOPLE), chance.randrange(1000)
        share, is_resent = chance.choice([0.0, 0.5, 1.0]), chance.random() < 0.5
        acts: list[tuple[int, Callable[[], None]]] = [
            (4, lambda: self.take(who)),
            (2, lambda: self.correct(who, which)),
            (1, lambda: self.session(who, chance.choice([1.0, 9.0, 20.0]), chance.random() < 0.3)),
            (3, lambda: self.save(share, is_resent)),
            (4, lambda: self.hand_in(share, is_resent)),
            (2, lambda: self.go_on_elsewhere()),
            (1, lambda: self.give_back()),
            (1, lambda: self.withdraw(chance.choice([ALICE, BOB, CARLA]))),
            (4, lambda: self.review(chance.choice([ACCEPT, ACCEPT, REJECT]), chance.random() < 0.5)),
            (3, lambda: self.bench.later(minutes=chance.choice([1.0, 30.0, 300.0]))),
            (1, self.cut),
        ]
        chance.choices([act for _, act in acts], [weight for weight, _ in acts])[0]()

    def check(self) -> None:
        """Everything that always holds."""
        self.nothing_acknowledged_is_lost()
        self.a_case_has_one_live_lease_at_most()
        self.one_accepted_label_counts_or_none()
        self.minutes_count_once_and_were_spent()
        self.snapshots_stay_and_hold_no_test_case()

    # -- what people do

    def take(self, who: Principal) -> None:
        with self.bench.store.write() as uow:
            outcome = leases.lease_next_case(uow, who, self.bench.project_id, None)
        if isinstance(outcome, leases.LeaseDetails):
            self.handles.append((who, outcome))

    def correct(self, who: Principal, which: int) -> None:
        case_id = sorted(case.case_id for case in self.cases())[which % 4]
        try:
            self.handles.append((who, take_again(self.bench, case_id, who)))
        except IllegalTransition:
            return

    def session(self, who: Principal, minutes: float, is_ended: bool) -> None:
        with self.bench.store.write() as uow:
            wish = sessions.SessionTerms(minutes=minutes)
            outcome = sessions.start_session(uow, who, self.bench.project_id, wish)
            if isinstance(outcome, leases.NoCase):
                return
            assert outcome.session.predicted_minutes <= minutes or len(outcome.leases) == 1
            self.handles += [(who, each) for each in outcome.leases]
            if is_ended:
                sessions.end_session(uow, who, self.bench.project_id, outcome.session.session_id, {})

    def save(self, share: float, is_resent: bool) -> None:
        if not self.handles:
            return
        who, details = self.handles[self.recent(len(self.handles))]
        segments = self.time(who, details, share, is_resent)
        saved = save(self.bench, details, who, receipt=self.mask(details), time_segments=segments)
        known = self.drafts.get(saved.draft.draft_id, 0)
        assert known < saved.draft.revision, "a save is never older than one before"
        self.drafts[saved.draft.draft_id] = saved.draft.revision
        self.book(who, segments, is_late=saved.draft.late)

    def hand_in(self, share: float, is_resent: bool) -> None:
        if not self.handles:
            return
        who, details = self.handles[self.recent(len(self.handles))]
        segments = self.time(who, details, share, is_resent)
        kept = self.draft_of(details)
        case = next(each for each in self.cases() if each.case_id == details.lease.case_id)
        stored = hand_in(self.bench, details, who, receipt=self.mask(details), time_segments=segments)
        self.sent.append(stored)
        if details.lease.fencing_token != case.fencing_token:
            assert ReviewState.DRAFT == stored.review_state, "an old token counts for nothing"
        is_late = stored.review_state == ReviewState.DRAFT
        self.book(who, segments, is_late=is_late)
        if not is_late:
            self.drafts.pop(kept, None)

    def go_on_elsewhere(
        self,
    ) -> None:
        if not self.handles:
            return
        who, details = self.handles[self.recent(len(self.handles))]
        try:
            taken = take_up(self.bench, details, who)
        except LeaseLost:
            return
        assert taken.details.lease.start_time == details.lease.start_time
        self.handles.append((who, taken.details))

    def give_back(
        self,
    ) -> None:
        if not self.handles:
            return
        who, details = self.handles[self.recent(len(self.handles))]
        lease = details.lease
        with self.bench.store.write() as uow:
            ends = (uow, who, self.bench.project_id, lease.lease_id, lease.fencing_token)
            try:
                leases.release_lease(*ends, reason="", segments=[])
            except LeaseLost:
                return

    def withdraw(self, who: Principal) -> None:
        if not self.sent:
            return
        try:
            withdraw(self.bench, self.sent[self.recent(len(self.sent))], who)
        except REFUSALS:
            return

    def review(self, verdict: Any, supersede: bool) -> None:
        if not self.sent:
            return
        try:
            review(self.bench, self.sent[self.recent(len(self.sent))], verdict, supersede=supersede)
        except REFUSALS:
            return

    def cut(self) -> None:
        """The round is cut as the reconciler does, and the next one hands out cases."""
        services = Services(state=self.bench.store, inference=None, trainer=None)  # type: ignore[arg-type]
        view = read_view(self.bench.store, self.bench.project_id)
        number = view.rounds[-1].number
        if view.rounds[-1].state != RoundState.ANNOTATING or not view.cases.round_training_labels:
            return
        actions.cut(services, view, steps.CutSnapshot(round=number, open_next=True))
        with self.bench.store.write() as uow:
            snapshot = uow.rounds.snapshot(self.bench.project_id, number)
            assert snapshot is not None
            self.snapshots[number] = snapshot
            closing = uow.rounds.get(self.bench.project_id, number)
            uow.rounds.update(replace(closing, state=RoundState.CLOSED))
        view = read_view(self.bench.store, self.bench.project_id)
        try:
            actions.open_selection(services, view, steps.OpenSelection(round=number + 1))
        except VersionConflict:
            return

    # -- what always holds

    def nothing_acknowledged_is_lost(self) -> None:
        with self.bench.store.read() as uow:
            for stored in self.sent:
                found = uow.submissions.get(self.bench.project_id, stored.submission_id)
                assert (stored.mask_volume_id, stored.revision) == (found.mask_volume_id, found.revision)
            for draft_id, revision in self.drafts.items():
                assert revision == uow.drafts.get(self.bench.project_id, draft_id).revision  # type: ignore[arg-type]

    def a_case_has_one_live_lease_at_most(self) -> None:
        with self.bench.store.read() as uow:
            live: list[str] = []
            for _, details in self.handles:
                lease = uow.leases.get(self.bench.project_id, details.lease.lease_id)
                if lease.state == LeaseState.LIVE:
                    live.append(lease.lease_id)
                    case = uow.cases.get(self.bench.project_id, lease.case_id)
                    assert (case.is_held, case.fencing_token) == (True, lease.fencing_token)
            cases = {details.lease.lease_id: details.lease.case_id for _, details in self.handles}
            assert max(Counter(cases[lease_id] for lease_id in set(live)).values(), default=0) <= 1

    def one_accepted_label_counts_or_none(self) -> None:
        with self.bench.store.read() as uow:
            counting = {each.submission_id: each for each in uow.submissions.counting(self.bench.project_id)}
            for case in uow.cases.all(self.bench.project_id):
                of_case = {each.submission_id: each for each in uow.submissions.of_case(case.case_id)}
                if case.submission_id is not None:
                    assert ReviewState.ACCEPTED == of_case[case.submission_id].review_state
                    assert case.submission_id in counting
                waiting = [each for each in of_case.values() if each.review_state == ReviewState.PENDING]
                assert len(waiting) <= 1
                expected_pending = waiting[0].submission_id if waiting else None
                assert expected_pending == case.pending_submission_id
                labelled = case.submission_id is not None
                assert labelled == (case.state == CaseState.LABELLED)
            newest = uow.rounds.all(self.bench.project_id)[-1].number
            expected = sum(each.round == newest for each in counting.values())
            assert expected == uow.tallies.cases(self.bench.project_id, newest).round_labels

    def minutes_count_once_and_were_spent(self) -> None:
        with self.bench.store.read() as uow:
            entries = uow.ledger.all(self.bench.project_id)
            segments = Counter(entry.segment for entry in entries)
            assert {1} >= set(segments.values())
            assert set(self.booked) <= set(segments)
            by_person: defaultdict[str, list[TimeSegment]] = defaultdict(list)
            by_lease: defaultdict[str, float] = defaultdict(float)
            leases_of = {each.submission_id: each.lease_id for each in self.sent}
            for entry in entries:
                by_person[entry.annotator_id].append(entry.segment)
                lease_id = entry.lease_id or leases_of[entry.submission_id]  # type: ignore[index]
                by_lease[str(lease_id)] += entry.segment.active_seconds
            for spent in by_person.values():
                spent.sort(key=lambda each: each.start_time)
                for one, two in pairwise(spent):
                    end = one.start_time + timedelta(seconds=one.active_seconds)
                    assert end - two.start_time <= CLOCK_TOLERANCE
            for lease_id, seconds in by_lease.items():
                lease = uow.leases.get(self.bench.project_id, lease_id)  # type: ignore[arg-type]
                assert seconds <= (self.bench.now - lease.start_time).total_seconds() + 1e-6

    def snapshots_stay_and_hold_no_test_case(self) -> None:
        with self.bench.store.read() as uow:
            held_out = {case.case_id for case in uow.cases.all(self.bench.project_id) if case.held_out}
            for number, snapshot in self.snapshots.items():
                assert snapshot == uow.rounds.snapshot(self.bench.project_id, number)
                assert held_out.isdisjoint(example.case_id for example in snapshot.training)

    # -- how it is written

    def recent(self, count: int) -> int:
        """One of so many things, mostly one of the newest."""
        return count - 1 - int(self.chance.random() ** 3 * count)

    def cases(self) -> list[Any]:
        with self.bench.store.read() as uow:
            return uow.cases.all(self.bench.project_id)

    def mask(self, details: leases.LeaseDetails) -> Any:
        return other_mask(f"mask {next(self.names)}", details)

    def time(
        self, who: Principal, details: leases.LeaseDetails, share: float, is_resent: bool
    ) -> tuple[TimeSegment, ...]:
        """A share of the annotator's time since they last booked any, with what was booked for the lease before."""
        start = max(self.worked_until.get(who.subject, details.lease.start_time), details.lease.start_time)
        seconds = (self.bench.now - start).total_seconds() * share
        fresh = (measured(start, seconds),) if 0 < seconds <= 86_400 else ()
        with self.bench.store.read() as uow:
            known = [entry.segment for entry in uow.ledger.of_lease(details.lease.lease_id)]
        return (*(known if is_resent else ()), *fresh)

    def book(self, who: Principal, segments: tuple[TimeSegment, ...], *, is_late: bool) -> None:
        """It was spent in any case; that of late work may be booked later, if a reviewer accepts it."""
        for segment in segments:
            end = segment.start_time + timedelta(seconds=segment.active_seconds)
            self.worked_until[who.subject] = max(self.worked_until.get(who.subject, end), end)
            self.booked += [] if is_late else [segment]

    def draft_of(self, details: leases.LeaseDetails) -> str:
        with self.bench.store.read() as uow:
            draft = uow.drafts.of_lease(details.lease.lease_id)
        return "" if draft is None else draft.draft_id


@settings(max_examples=5)
@given(seed=st.integers(0, 2**32), is_reviewed=st.booleans())
def test_labels_leases_and_minutes_hold_together(seed: int, is_reviewed: bool) -> None:
    """After every step of every history: nothing lost, one lease, one label, no minute twice."""
    with tempfile.TemporaryDirectory() as folder:
        labels = Labels(Path(folder), Random(seed), is_reviewed=is_reviewed)
        for _ in range(STEPS):
            labels.step()
            labels.check()
        labels.bench.store.close()
