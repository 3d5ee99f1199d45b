"""Drafts and leases that are taken up again: nothing drawn is lost, and no minute counts twice."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from rekindle.errors import IllegalTransition, InvalidInput, LeaseLost, NotFound, PermissionDenied
from rekindle.vocabulary import TimeKind, TimeSource
from rekindle_scheduler.domain.enums import CaseState, ReviewState
from rekindle_scheduler.domain.ids import CaseId, DraftId
from rekindle_scheduler.usecases import drafts, leases, ledger
from scheduler_labels import CARLA, hand_in, other_mask, save, take, take_again, take_up, withdraw
from scheduler_ports import ALICE, BOB, START, Bench, measured, states


def minutes(bench: Bench) -> float:
    with bench.store.read() as uow:
        return ledger.report(uow, bench.project_id).ledger.minutes_total


def newest(bench: Bench, case_id: CaseId, principal: Any = ALICE) -> Any:
    with bench.store.read() as uow:
        return drafts.get_draft(uow, principal, bench.project_id, case_id=case_id, draft_id=None)


def test_a_draft_is_saved_and_found_again(bench: Bench) -> None:
    """With its mask, statuses and note; the next save takes its place under the same id."""
    details = take(bench)
    first = save(bench, details, note="liver done").draft
    assert first == newest(bench, details.case.case_id)
    assert (states(liver="edited"), "liver done", 1) == (first.organ_states, first.note, first.revision)
    bench.later(minutes=1)
    second = save(bench, details, receipt=other_mask("m2", details)).draft
    assert (first.draft_id, 2, "m2") == (second.draft_id, second.revision, second.mask_volume_id)
    with bench.store.read() as uow:
        listed = drafts.list_drafts(uow, ALICE, bench.project_id, after=(START - timedelta(days=1), ""), limit=9)
        assert [second] == [draft for _, draft in listed]


def test_a_drafts_time_is_booked_at_once_and_once(bench: Bench) -> None:
    """A tool that sends its whole log with each save and with the label pays each segment once."""
    details = take(bench)
    bench.later(minutes=30)
    first, second = measured(START, 300.0), measured(START + timedelta(minutes=5), 300.0)
    save(bench, details, time_segments=(first,))
    assert 5.0 == pytest.approx(minutes(bench))
    save(bench, details, time_segments=(first, second))
    assert 10.0 == pytest.approx(minutes(bench))
    third = measured(START + timedelta(minutes=10), 60.0)
    stored = hand_in(bench, details, time_segments=(first, second, third))
    assert 11.0 == pytest.approx(minutes(bench))
    assert (first, second, third) == stored.time_segments
    with bench.store.read() as uow:
        entries = uow.ledger.all(bench.project_id)
        (summary,) = ledger.report(uow, bench.project_id).ledger.rounds
    assert {stored.submission_id} == {entry.submission_id for entry in entries}
    assert (1, 11.0) == (summary.cases, pytest.approx(summary.minutes))


def test_kind_and_source_of_a_drafts_time_are_kept(bench: Bench) -> None:
    """Reading, inferred: as it was sent, in the ledger and on the draft."""
    details = take(bench)
    segment = replace(measured(START, 90.0), kind=TimeKind.READING, source=TimeSource.INFERRED, tool="viewer 3")
    draft = save(bench, details, time_segments=(segment,)).draft
    with bench.store.read() as uow:
        assert [segment] == [entry.segment for entry in uow.ledger.all(bench.project_id)]
    assert (segment,) == draft.time_segments


@pytest.mark.parametrize(
    "segments",
    [
        (measured(START + timedelta(minutes=4), 300.0),),
        (measured(START + timedelta(minutes=6), 1500.0),),
    ],
    ids=["overlaps what was booked", "exceeds what was held, with what was booked"],
)
def test_time_that_was_not_spent_is_refused(bench: Bench, segments: tuple[Any, ...]) -> None:
    """New segments may neither overlap booked ones nor exceed, with them, the time that the case was held."""
    details = take(bench)
    bench.later(minutes=25)
    save(bench, details, time_segments=(measured(START, 300.0),))
    with pytest.raises(InvalidInput) as refused:
        save(bench, details, time_segments=segments)
    assert "TIME_NOT_PLAUSIBLE" == refused.value.reason
    assert 5.0 == pytest.approx(minutes(bench))


def test_a_draft_under_a_lost_lease_is_kept_beside(bench: Bench) -> None:
    """Bob holds the case: Alice's work is stored as late, books nothing, and she finds it again."""
    details = take(bench)
    bench.later(hours=5)
    take(bench, BOB)
    saved = save(bench, details, time_segments=(measured(START, 60.0),))
    assert saved.draft.late
    assert 0.0 == minutes(bench)
    assert saved.draft == newest(bench, details.case.case_id)


def test_an_old_tools_draft_does_not_hide_the_new_ones(bench: Bench) -> None:
    """The tool that was left behind saves late: what the caller goes on from stays the newer tool's."""
    details = take(bench)
    taken = take_up(bench, details)
    current = save(bench, taken.details).draft
    bench.later(minutes=5)
    late = save(bench, details).draft
    assert (False, True) == (current.late, late.late)
    assert current == newest(bench, details.case.case_id)


def test_saving_a_draft_renews_a_live_lease_where_asked(bench: Bench) -> None:
    """By the policy's four hours; without the wish its end stays."""
    details = take(bench)
    bench.later(hours=3)
    assert details.lease.expire_time == save(bench, details).details.lease.expire_time
    assert START + timedelta(hours=7) == save(bench, details, extend=True).details.lease.expire_time


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"organ_states": states(kidney="edited")}, "organ_states[0]"),
        ({"organ_states": (*states(liver="edited"), *states(liver="absent"))}, "organ_states[1]"),
        ({"note": "x" * 2001}, "note"),
        ({"note": "a\x00b"}, "note"),
        ({"time_segments": (measured(START, -1.0),)}, "time_segments[0].active_seconds"),
    ],
)
def test_a_draft_that_makes_no_sense_is_refused(bench: Bench, changes: dict[str, Any], field: str) -> None:
    """The field is named, and neither a draft nor a minute is stored."""
    details = take(bench)
    with pytest.raises(InvalidInput) as refused:
        save(bench, details, **changes)
    assert field == refused.value.violations[0].field
    with pytest.raises(NotFound):
        newest(bench, details.case.case_id)
    assert 0.0 == minutes(bench)


def test_a_draft_belongs_to_its_annotator(bench: Bench) -> None:
    """Others neither read nor discard it; a reviewer reads it by its id."""
    details = take(bench)
    draft = save(bench, details).draft
    with bench.store.write() as uow:
        by_id = {"case_id": None, "draft_id": draft.draft_id}
        with pytest.raises(PermissionDenied):
            drafts.get_draft(uow, BOB, bench.project_id, **by_id)
        with pytest.raises(PermissionDenied):
            drafts.discard_draft(uow, BOB, bench.project_id, draft.draft_id)
        assert draft == drafts.get_draft(uow, CARLA, bench.project_id, **by_id)
        drafts.discard_draft(uow, ALICE, bench.project_id, draft.draft_id)
        with pytest.raises(NotFound):
            drafts.discard_draft(uow, ALICE, bench.project_id, DraftId(draft.draft_id))


def test_a_handed_in_label_ends_its_draft(bench: Bench) -> None:
    """There is nothing left to go on from."""
    details = take(bench)
    save(bench, details)
    hand_in(bench, details)
    with pytest.raises(NotFound):
        newest(bench, details.case.case_id)


def test_a_lease_is_taken_up_in_another_tool(bench: Bench) -> None:
    """The same lease, start and time under a new token; the tool before can neither save in place nor submit."""
    details = take(bench)
    bench.later(minutes=30)
    segment = measured(START, 600.0)
    draft = save(bench, details, time_segments=(segment,)).draft
    taken = take_up(bench, details)
    lease = taken.details.lease
    assert (details.lease.lease_id, START) == (lease.lease_id, lease.start_time)
    assert lease.fencing_token > details.lease.fencing_token
    assert (draft, (segment,), "another tool") == (taken.draft, taken.time_segments, lease.tool)
    assert ReviewState.DRAFT == hand_in(bench, details).review_state
    old = details.lease
    with bench.store.write() as uow, pytest.raises(LeaseLost):
        leases.renew_lease(uow, ALICE, bench.project_id, old.lease_id, old.fencing_token, None)
    more = measured(START + timedelta(minutes=10), 300.0)
    stored = hand_in(bench, taken.details, time_segments=(segment, more))
    assert ReviewState.ACCEPTED == stored.review_state
    assert 15.0 == pytest.approx(minutes(bench))


def test_a_lease_that_ran_out_is_taken_up_while_the_case_is_free(bench: Bench) -> None:
    """It lives again, and nobody else is given the case; once Bob has the case it is lost."""
    details = take(bench)
    bench.later(hours=5)
    taken = take_up(bench, details)
    assert START + timedelta(hours=9) == taken.details.lease.expire_time
    assert CaseState.LEASED == taken.details.case.state
    assert details.case.case_id != take(bench, BOB).case.case_id
    bench.later(hours=5)
    assert details.case.case_id == take(bench, BOB).case.case_id
    with pytest.raises(LeaseLost):
        take_up(bench, details)


def test_only_ones_own_living_lease_is_taken_up(bench: Bench) -> None:
    """Neither somebody else's nor one that has ended."""
    details = take(bench)
    with pytest.raises(PermissionDenied):
        take_up(bench, details, BOB)
    hand_in(bench, details)
    with pytest.raises(LeaseLost, match="submission"):
        take_up(bench, details)


def test_time_of_a_released_lease_counts_once(bench: Bench) -> None:
    """Saved with a draft and sent again with the release; the draft is still there for the next lease."""
    details = take(bench)
    bench.later(minutes=10)
    segment = measured(START, 300.0)
    save(bench, details, time_segments=(segment,))
    lease = details.lease
    with bench.store.write() as uow:
        leases.release_lease(
            uow,
            ALICE,
            bench.project_id,
            lease.lease_id,
            lease.fencing_token,
            reason="",
            segments=[segment, measured(START + timedelta(minutes=5), 60.0)],
        )
    assert 6.0 == pytest.approx(minutes(bench))
    assert not newest(bench, details.case.case_id).late


def test_a_correction_has_drafts_too(bench: Bench) -> None:
    """Saved under the lease that corrects a label; a label withdrawn meanwhile takes nothing from it."""
    details = take(bench)
    stored = hand_in(bench, details)
    again = take_again(bench, details.case.case_id)
    save(bench, again, receipt=other_mask("m2", again, base=stored.mask_volume_id))
    withdraw(bench, stored)
    corrected = hand_in(bench, again, receipt=other_mask("m3", again))
    assert (ReviewState.ACCEPTED, None) == (corrected.review_state, corrected.supersedes_submission_id)


def test_a_case_or_a_draft_is_named(bench: Bench) -> None:
    """Neither none nor both."""
    with bench.store.read() as uow:
        for names in ({"case_id": None, "draft_id": None}, {"case_id": CaseId("c"), "draft_id": DraftId("d")}):
            with pytest.raises(InvalidInput):
                drafts.get_draft(uow, ALICE, bench.project_id, **names)


def test_a_labelled_case_is_leased_for_a_correction_only(bench: Bench) -> None:
    """Without `revise` it is refused, as is an unlabelled case with it, and one that is being corrected."""
    details = take(bench)
    with pytest.raises(IllegalTransition) as refused:
        take_again(bench, details.case.case_id)
    assert "CASE_NOT_LABELLED" == refused.value.reason
    hand_in(bench, details)
    with bench.store.write() as uow, pytest.raises(IllegalTransition) as refused:
        leases.lease_case(uow, ALICE, bench.project_id, details.case.case_id, None, 0)
    assert "CASE_LABELLED" == refused.value.reason
    take_again(bench, details.case.case_id, BOB)
    with pytest.raises(IllegalTransition) as refused:
        take_again(bench, details.case.case_id)
    assert "CASE_LEASED" == refused.value.reason
