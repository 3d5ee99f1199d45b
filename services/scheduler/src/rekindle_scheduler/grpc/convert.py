"""The scheduler's messages as records and back."""

from __future__ import annotations

from datetime import timedelta

from rekindle.api.scheduler.v1 import annotation_pb2, scheduler_pb2
from rekindle.api.scheduler.v1 import records_pb2 as pb
from rekindle_servicekit.moments import timestamp

from rekindle_scheduler import wire
from rekindle_scheduler.domain.annotation import Draft
from rekindle_scheduler.domain.enums import RunState
from rekindle_scheduler.domain.events import RoundEvent
from rekindle_scheduler.domain.records import (
    Case,
    CoarseLabel,
    LedgerEntry,
    LedgerSummary,
    OrganComparison,
    PromotionDecision,
    SeedCase,
    Submission,
)
from rekindle_scheduler.grpc.policies import policy_to_api
from rekindle_scheduler.usecases.leases import LeaseDetails, NoCase
from rekindle_scheduler.usecases.projects import ProjectDetails
from rekindle_scheduler.usecases.rounds import RoundDetails
from rekindle_scheduler.usecases.sessions import SessionDetails

_WAITING = (RunState.QUEUED, RunState.PREEMPTED, RunState.FAILED, RunState.CANCELLED)


def project_to_api(details: ProjectDetails) -> pb.Project:
    project, counts = details.project, details.counts
    return pb.Project(
        project_id=project.project_id,
        display_name=project.display_name,
        organs=[wire.organ_to_api(organ) for organ in project.organs],
        target_modality=wire.modality_to_api(project.target_modality),
        policy=policy_to_api(project.policy),
        state=wire.number_of(pb.ProjectState, project.state, "PROJECT_STATE_"),
        state_reason=project.state_reason,
        registration_open=project.registration_open,
        create_time=timestamp(project.create_time),
        policy_version=project.policy_version,
        counts=pb.CaseCounts(
            seed=counts.seed,
            registered=counts.registered,
            predicted=counts.predicted,
            leased=counts.leased,
            labelled=counts.labelled,
            held_out=counts.held_out,
            held_out_labelled=counts.held_out_labelled,
            in_review=counts.in_review,
        ),
        active_model_version_id=project.active_model_version_id or "",
        current_round=details.current_round,
    )


def seed_case_to_api(seed_case: SeedCase) -> pb.SeedCase:
    return pb.SeedCase(
        seed_case_id=seed_case.seed_case_id,
        modality=wire.modality_to_api(seed_case.modality),
        image_volume_id=seed_case.image_volume_id,
        mask_volume_id=seed_case.mask_volume_id,
    )


def case_to_api(case: Case) -> pb.Case:
    label = case.coarse_label
    return pb.Case(
        case_id=case.case_id,
        project_id=case.project_id,
        volume_id=case.volume_id,
        group_key=case.group_key,
        state=wire.number_of(pb.CaseState, case.state, "CASE_STATE_"),
        mark=wire.number_of(pb.CaseMark, case.mark, "CASE_MARK_"),
        held_out=case.held_out,
        round=case.round,
        coarse_label=None if label is None else _coarse_label(label),
        submission_id=case.submission_id or "",
        register_time=timestamp(case.register_time),
        pending_submission_id=case.pending_submission_id or "",
    )


def lease_to_api(details: LeaseDetails) -> pb.Lease:
    lease = details.lease
    return pb.Lease(
        lease_id=lease.lease_id,
        project_id=lease.project_id,
        case=case_to_api(details.case),
        fencing_token=lease.fencing_token,
        annotator_id=lease.annotator_id,
        start_time=timestamp(lease.start_time),
        expire_time=timestamp(lease.expire_time),
        state=wire.number_of(pb.LeaseState, lease.state, "LEASE_STATE_"),
        round=lease.round,
        session_id=lease.session_id or "",
        tool=lease.tool,
        revises=lease.revises_submission_id is not None,
    )


def submission_to_api(submission: Submission) -> pb.Submission:
    return pb.Submission(
        submission_id=submission.submission_id,
        project_id=submission.project_id,
        case_id=submission.case_id,
        round=submission.round,
        annotator_id=submission.annotator_id,
        mask_volume_id=submission.mask_volume_id,
        mask_digest=submission.mask_digest,
        receipt_id=submission.receipt_id,
        organ_states=[wire.organ_state_to_api(state) for state in submission.organ_states],
        time_segments=[wire.segment_to_api(segment) for segment in submission.time_segments],
        effort=[wire.effort_to_api(effort) for effort in submission.effort],
        coarse_model_version_id=submission.coarse_model_version_id or "",
        create_time=timestamp(submission.create_time),
        revision=submission.revision,
        supersedes_submission_id=submission.supersedes_submission_id or "",
        review_state=wire.number_of(pb.ReviewState, submission.review_state, "REVIEW_STATE_"),
        held_out=submission.held_out,
        reviewed_by=submission.reviewed_by or "",
        review_time=timestamp(submission.review_time),
        review_comment=submission.review_comment,
        withdraw_time=timestamp(submission.withdraw_time),
        withdraw_reason=submission.withdraw_reason,
        started_from_submission_id=submission.started_from_submission_id or "",
        snapshot_round=submission.snapshot_round,
    )


def round_to_api(details: RoundDetails) -> pb.Round:
    each = details.round
    run, decision = each.run, each.decision
    queued = run.reason if run is not None and run.state in _WAITING else ""
    return pb.Round(
        project_id=each.project_id,
        number=each.number,
        state=wire.number_of(pb.RoundState, each.state, "ROUND_STATE_"),
        selected_case_ids=each.selected_case_ids,
        labelled_cases=each.labelled_cases,
        labelled_total=each.labelled_total,
        run_id="" if run is None else run.run_id,
        snapshot_digest=each.snapshot_digest or "",
        candidate_model_version_id=each.candidate_model_version_id or "",
        decision=None if decision is None else _decision(decision),
        serving_model_version_id=each.serving_model_version_id or "",
        start_time=timestamp(each.start_time),
        end_time=timestamp(each.end_time),
        minutes=details.minutes,
        reason=each.reason or queued,
    )


def event_to_api(event: RoundEvent) -> pb.RoundEvent:
    return pb.RoundEvent(
        cursor=event.cursor,
        time=timestamp(event.time),
        kind=event.kind,
        message=event.message,
        round=event.round,
        details=dict(event.details),
    )


def ledger_entry_to_api(entry: LedgerEntry) -> pb.LedgerEntry:
    return pb.LedgerEntry(
        case_id=entry.case_id,
        annotator_id=entry.annotator_id,
        round=entry.round,
        held_out=entry.held_out,
        coarse_model_version_id=entry.coarse_model_version_id or "",
        segment=wire.segment_to_api(entry.segment),
        submission_id=entry.submission_id or "",
        lease_id=entry.lease_id or "",
    )


def ledger_to_api(summary: LedgerSummary) -> pb.LedgerSummary:
    rounds = [
        pb.RoundMinutes(
            round=each.round,
            cases=each.cases,
            minutes=each.minutes,
            held_out_cases=each.held_out_cases,
            held_out_minutes=each.held_out_minutes,
        )
        for each in summary.rounds
    ]
    return pb.LedgerSummary(
        minutes_total=summary.minutes_total,
        minutes_held_out=summary.minutes_held_out,
        rounds=rounds,
        minutes_measured=summary.minutes_measured,
        minutes_inferred=summary.minutes_inferred,
        minutes_simulated=summary.minutes_simulated,
    )


def draft_to_api(draft: Draft) -> annotation_pb2.Draft:
    return annotation_pb2.Draft(
        draft_id=draft.draft_id,
        project_id=draft.project_id,
        case_id=draft.case_id,
        lease_id=draft.lease_id,
        annotator_id=draft.annotator_id,
        mask_volume_id=draft.mask_volume_id,
        receipt_id=draft.receipt_id,
        organ_states=[wire.organ_state_to_api(state) for state in draft.organ_states],
        note=draft.note,
        time_segments=[wire.segment_to_api(segment) for segment in draft.time_segments],
        save_time=timestamp(draft.save_time),
        revision=draft.revision,
        late=draft.late,
    )


def session_to_api(details: SessionDetails) -> annotation_pb2.Session:
    session = details.session
    return annotation_pb2.Session(
        session_id=session.session_id,
        project_id=session.project_id,
        annotator_id=session.annotator_id,
        minutes=session.minutes,
        predicted_minutes=session.predicted_minutes,
        detached=session.detached,
        create_time=timestamp(session.create_time),
        expire_time=timestamp(session.expire_time),
        leases=[lease_to_api(lease) for lease in details.leases],
        end_time=timestamp(session.end_time),
    )


def no_case_to_api(outcome: NoCase) -> scheduler_pb2.NoCase:
    retry = outcome.retry_after
    return scheduler_pb2.NoCase(
        reason=wire.number_of(scheduler_pb2.NoCase.Reason, outcome.reason, "REASON_"),
        message=outcome.message,
        retry_after=None if retry is None else wire.duration(retry.total_seconds()),
    )


def duration_of(request: object, field: str = "duration") -> timedelta | None:
    """None where the request leaves it open; InvalidInput for one that is out of range."""
    message = getattr(request, field)
    if not request.HasField(field):  # type: ignore[attr-defined]  # pyright: ignore[reportAttributeAccessIssue]
        return None
    return wire.span(message, field)


def _coarse_label(label: CoarseLabel) -> pb.CoarseLabel:
    return pb.CoarseLabel(
        mask_volume_id=label.mask_volume_id,
        model_version_id=label.model_version_id,
        quality=[wire.quality_to_api(quality) for quality in label.quality],
        predicted_minutes=label.predicted_minutes,
        mask_digest=label.mask_digest,
    )


def _decision(decision: PromotionDecision) -> pb.PromotionDecision:
    return pb.PromotionDecision(
        promoted=decision.promoted,
        reason=decision.reason,
        basis=wire.number_of(pb.PromotionDecision.Basis, decision.basis, "BASIS_"),
        organs=[_comparison(organ) for organ in decision.organs],
    )


def _comparison(organ: OrganComparison) -> pb.OrganComparison:
    return pb.OrganComparison(
        organ_id=organ.organ_id,
        candidate_dice=organ.candidate_dice,
        current_dice=organ.current_dice,
        cases=organ.cases,
    )
