"""Records as messages of the API where their fields do not agree, and policies back."""

from __future__ import annotations

from dataclasses import fields
from typing import Any, TypeVar

from rekindle.api.common.v1 import common_pb2
from rekindle.api.scheduler.v1 import annotation_pb2
from rekindle.api.scheduler.v1 import records_pb2 as pb
from rekindle.convert import from_proto, to_proto
from rekindle.vocabulary import RunState, TrainingWindow

from rekindle_scheduler.domain.policy import (
    GeometricSizes,
    HeldOutPolicy,
    MinutesBudget,
    Policy,
    RoundSizes,
    Sizing,
    TrainingPolicy,
)
from rekindle_scheduler.usecases.leases import LeaseDetails
from rekindle_scheduler.usecases.projects import ProjectDetails
from rekindle_scheduler.usecases.rounds import RoundDetails
from rekindle_scheduler.usecases.sessions import SessionDetails

T = TypeVar("T")

#: Names of the sizings in the API, by record.
_SIZINGS = {RoundSizes: "sizes", GeometricSizes: "geometric", MinutesBudget: "minutes"}
_WAITING = (RunState.QUEUED, RunState.PREEMPTED, RunState.FAILED, RunState.CANCELLED)


def project_to_proto(details: ProjectDetails) -> pb.Project:
    policy = policy_to_proto(details.project.policy)
    return to_proto(
        details.project, pb.Project, policy=policy, counts=details.counts, current_round=details.current_round
    )


def lease_to_proto(details: LeaseDetails) -> pb.Lease:
    lease = details.lease
    return to_proto(lease, pb.Lease, case=details.case, revises=lease.revises_submission_id is not None)


def session_to_proto(details: SessionDetails) -> annotation_pb2.Session:
    leases = [lease_to_proto(lease) for lease in details.leases]
    return to_proto(details.session, annotation_pb2.Session, leases=leases)


def round_to_proto(details: RoundDetails) -> pb.Round:
    """The round; while it has no reason of its own to wait, the one of its run."""
    round, run = details.round, details.round.run
    run_reason = run.reason if run is not None and run.state in _WAITING else ""
    return to_proto(
        round,
        pb.Round,
        run_id=None if run is None else run.run_id,
        minutes=details.minutes,
        reason=round.reason or run_reason,
    )


def policy_to_proto(policy: Policy) -> pb.Policy:
    sizing = {**dict.fromkeys(_SIZINGS.values()), _SIZINGS[type(policy.sizing)]: policy.sizing}
    return to_proto(policy, pb.Policy, **sizing)


def policy_from_proto(message: pb.Policy, current: Policy | None = None) -> Policy:
    """The policy; a field that is not set takes its default, or is kept as it is in `current` (see `KEPT`).

    proto3 does not tell an unset number from 0, so 0 is the default where 0 makes no sense (see `ZERO_IS_UNSET`).
    """
    current = current or Policy()
    return _with_kept(
        message,
        Policy,
        current,
        "policy",
        sizing=_sizing(message),
        held_out=_held_out(message),
        training=_with_kept(
            message.training, TrainingPolicy, current.training, "policy.training", **_window(message.training)
        ),
    )


def _with_kept(message: Any, record_type: type[T], current: T, field: str, **given: Any) -> T:
    kept = [item.name for item in fields(record_type) if item.metadata.get("kept")]  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    unset = {name: getattr(current, name) for name in kept if not message.HasField(name)}
    return from_proto(message, record_type, field, **unset, **given)


def _sizing(message: pb.Policy) -> Sizing:
    name = message.WhichOneof("sizing")
    if name is None:
        return Policy().sizing
    kinds = {name: kind for kind, name in _SIZINGS.items()}
    return from_proto(getattr(message, name), kinds[name], f"policy.{name}")


def _held_out(message: pb.Policy) -> HeldOutPolicy:
    default = Policy().held_out
    if not message.HasField("held_out"):
        return default
    size = {} if message.held_out.WhichOneof("size") else {"fraction": default.fraction}
    return from_proto(message.held_out, HeldOutPolicy, "policy.held_out", **size)


def _window(training: pb.TrainingPolicy) -> dict[str, TrainingWindow | None]:
    """The window where it is set; None for an empty one, which is any time. Days that are named twice count once."""
    if not training.HasField("window"):
        return {}
    if training.window == common_pb2.TrainingWindow():
        return {"window": None}
    plain = common_pb2.TrainingWindow()
    plain.CopyFrom(training.window)
    plain.days[:] = dict.fromkeys(training.window.days)
    return {"window": from_proto(plain, TrainingWindow, "policy.training.window")}
