"""Protobuf to records and back."""

from __future__ import annotations

from typing import Final

from rekindle.api.common.v1 import common_pb2
from rekindle.api.trainer.v1 import trainer_pb2 as pb
from rekindle_servicekit.moments import timestamp

from rekindle_trainer.domain.limits import TrainingLimits
from rekindle_trainer.domain.metrics import Metric
from rekindle_trainer.domain.results import CaseMetrics, OrganMetrics, RunResult
from rekindle_trainer.domain.runs import Run, RunState
from rekindle_trainer.domain.spec import Example, Organ, RunSpec
from rekindle_trainer.domain.windows import TrainingWindow
from rekindle_trainer.usecases.runs import LimitsReport

_KINDS: Final = {pb.RUN_KIND_IGNITER: "igniter", pb.RUN_KIND_SUSTAINER: "sustainer"}
_MODALITIES: Final = {common_pb2.MODALITY_CT: "CT", common_pb2.MODALITY_MR: "MR"}
_SOURCES: Final = {common_pb2.EXAMPLE_SOURCE_SEED: "seed", common_pb2.EXAMPLE_SOURCE_TARGET: "target"}
_STATUSES: Final = {
    common_pb2.ORGAN_STATUS_EDITED: "edited",
    common_pb2.ORGAN_STATUS_ACCEPTED: "accepted",
    common_pb2.ORGAN_STATUS_ABSENT: "absent",
    common_pb2.ORGAN_STATUS_OUT_OF_VIEW: "out_of_view",
    common_pb2.ORGAN_STATUS_NOT_REVIEWED: "not_reviewed",
}
_STATES: Final = {
    RunState.QUEUED: pb.RUN_STATE_QUEUED,
    RunState.RUNNING: pb.RUN_STATE_RUNNING,
    RunState.PREEMPTED: pb.RUN_STATE_PREEMPTED,
    RunState.SUCCEEDED: pb.RUN_STATE_SUCCEEDED,
    RunState.FAILED: pb.RUN_STATE_FAILED,
    RunState.CANCELLED: pb.RUN_STATE_CANCELLED,
}
_KIND_NUMBERS: Final = {word: number for number, word in _KINDS.items()}
_MODALITY_NUMBERS: Final = {word: number for number, word in _MODALITIES.items()}
_SOURCE_NUMBERS: Final = {word: number for number, word in _SOURCES.items()}
_STATUS_NUMBERS: Final = {word: number for number, word in _STATUSES.items()}


def read_spec(run_id: str, project_id: str, message: pb.RunSpec) -> RunSpec:
    """A spec whose unknown enum values are empty words, for the validation to name."""
    kind = _KINDS.get(message.kind, "")
    return RunSpec(
        run_id=run_id,
        project_id=project_id,
        kind=kind,
        preset=message.preset,
        # An igniter has one recipe only, so it need not be named.
        recipe=message.recipe or ("default" if kind == "igniter" else ""),
        seed=message.seed,
        modality=_MODALITIES.get(message.modality, ""),
        organs=tuple(Organ(id=organ.id, label_value=organ.label_value) for organ in message.organs),
        training=tuple(_read_example(example) for example in message.training),
        heldout=tuple(_read_example(example) for example in message.heldout),
        initial_weights=message.initial_weights_digest or None,
        current_package=message.current_package_digest or None,
        largest_component=not message.keep_all_components,
    )


def write_run(run: Run, *, with_examples: bool = True) -> pb.Run:
    return pb.Run(
        run_id=run.run_id,
        project_id=run.project_id,
        spec=_write_spec(run.spec, with_examples=with_examples),
        state=_STATES[run.state],
        reason=run.reason,
        create_time=timestamp(run.created_at),
        start_time=timestamp(run.started_at),
        end_time=timestamp(run.ended_at),
        attempts=run.attempts,
        latest=None if run.latest is None else write_metric(run.latest),
        result=None if run.result is None else _write_result(run.result),
        snapshot_digest=run.snapshot_digest,
        gpu_seconds=run.gpu_seconds,
        limits_version=run.limits_version,
    )


def read_limits(message: pb.TrainingLimits) -> TrainingLimits:
    """Limits whose unknown days are numbers that no day has, for the validation to name."""
    return TrainingLimits(
        version=message.version,
        window=_read_window(message.window) if message.HasField("window") else None,
        gpu_seconds_budget=message.gpu_seconds_budget,
    )


def write_limits(limits: TrainingLimits) -> pb.TrainingLimits:
    return pb.TrainingLimits(
        version=limits.version,
        window=None if limits.window is None else _write_window(limits.window),
        gpu_seconds_budget=limits.gpu_seconds_budget,
    )


def write_report(report: LimitsReport, gpus: int) -> pb.GetTrainingLimitsResponse:
    return pb.GetTrainingLimitsResponse(
        limits=write_limits(report.limits),
        gpu_seconds=report.gpu_seconds,
        gpus_per_process=gpus,
        held_reason=report.held_reason,
    )


def _read_window(message: common_pb2.TrainingWindow) -> TrainingWindow:
    # The API's Monday is 1.
    days = tuple(sorted({day - 1 for day in message.days}))
    return TrainingWindow(days=days, start=message.start, end=message.end, time_zone=message.time_zone)


def _write_window(window: TrainingWindow) -> common_pb2.TrainingWindow:
    message = common_pb2.TrainingWindow(start=window.start, end=window.end, time_zone=window.time_zone)
    for day in window.days:
        message.days.append(common_pb2.Weekday.ValueType(day + 1))
    return message


def write_metric(metric: Metric) -> pb.Metric:
    record = metric.record
    return pb.Metric(
        cursor=metric.cursor,
        step=record.step,
        steps=record.steps,
        epoch=record.epoch,
        epochs=record.epochs,
        loss=record.loss or 0.0,
        learning_rate=record.learning_rate or 0.0,
        eta_seconds=record.eta_seconds or 0.0,
        phase=record.phase,
        dice=record.dice,
        time=timestamp(metric.time),
    )


def _read_example(message: common_pb2.Example) -> Example:
    return Example(
        case_id=message.case_id,
        source=_SOURCES.get(message.source, ""),
        modality=_MODALITIES.get(message.modality, ""),
        image_digest=message.image_digest,
        mask_digest=message.mask_digest,
        organ_statuses={state.organ_id: _STATUSES.get(state.status, "") for state in message.organ_states},
    )


def _write_spec(spec: RunSpec, *, with_examples: bool) -> pb.RunSpec:
    return pb.RunSpec(
        kind=_KIND_NUMBERS[spec.kind],
        preset=spec.preset,
        recipe=spec.recipe,
        seed=spec.seed,
        modality=_MODALITY_NUMBERS[spec.modality],
        organs=[common_pb2.Organ(id=organ.id, label_value=organ.label_value) for organ in spec.organs],
        training=[_write_example(example) for example in spec.training] if with_examples else [],
        heldout=[_write_example(example) for example in spec.heldout] if with_examples else [],
        initial_weights_digest=spec.initial_weights or "",
        current_package_digest=spec.current_package or "",
        keep_all_components=not spec.largest_component,
    )


def _write_example(example: Example) -> common_pb2.Example:
    return common_pb2.Example(
        case_id=example.case_id,
        source=_SOURCE_NUMBERS[example.source],
        modality=_MODALITY_NUMBERS[example.modality],
        image_digest=example.image_digest,
        mask_digest=example.mask_digest,
        organ_states=[
            common_pb2.OrganState(organ_id=organ_id, status=_STATUS_NUMBERS[status])
            for organ_id, status in sorted(example.organ_statuses.items())
        ],
    )


def _write_result(result: RunResult) -> pb.RunResult:
    return pb.RunResult(
        packages=[
            pb.RunPackage(modality=_MODALITY_NUMBERS[package.modality], package_digest=package.package_digest)
            for package in result.packages
        ],
        weights_digest=result.weights_digest,
        candidate=[_write_case(case) for case in result.candidate],
        current=[_write_case(case) for case in result.current],
        training_check=[_write_case(case) for case in result.training_check],
        train_seconds=result.train_seconds,
        epochs=result.epochs,
        final_loss=result.final_loss or 0.0,
    )


def _write_case(case: CaseMetrics) -> pb.CaseMetrics:
    organs = [_write_organ(organ) for organ in case.organs]
    return pb.CaseMetrics(image_digest=case.image_digest, case_id=case.case_id, organs=organs)


def _write_organ(organ: OrganMetrics) -> pb.OrganMetrics:
    return pb.OrganMetrics(
        organ_id=organ.organ_id,
        dice=organ.dice,
        hd95_mm=organ.hd95_mm,
        volume_error_ml=organ.volume_error_ml,
        predicted_ml=organ.predicted_ml,
    )
