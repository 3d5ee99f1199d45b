"""Drafts, sessions and reasons for having no case, as messages."""

from __future__ import annotations

from rekindle.api.scheduler.v1 import annotation_pb2 as pb
from rekindle.api.scheduler.v1 import scheduler_pb2
from rekindle_servicekit.moments import timestamp

from rekindle_scheduler import wire
from rekindle_scheduler.domain.annotation import Draft
from rekindle_scheduler.grpc.convert import lease_to_api
from rekindle_scheduler.usecases.leases import NoCase
from rekindle_scheduler.usecases.sessions import SessionDetails


def draft_to_api(draft: Draft) -> pb.Draft:
    return pb.Draft(
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


def session_to_api(details: SessionDetails) -> pb.Session:
    session = details.session
    return pb.Session(
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
