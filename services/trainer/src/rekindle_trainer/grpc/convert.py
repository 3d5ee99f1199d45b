"""Messages to records and back, where names differ or a decision is needed."""

from __future__ import annotations

from rekindle.api.trainer.v1 import trainer_pb2 as pb
from rekindle.convert import from_proto, to_proto
from rekindle.vocabulary import Example

from rekindle_trainer.domain.metrics import Metric
from rekindle_trainer.domain.runs import Run
from rekindle_trainer.domain.spec import RunSpec


def spec_from_proto(request: pb.StartRunRequest) -> RunSpec:
    """The spec of a run to start; InvalidInput names a word that is missing or not known."""
    message = request.spec
    is_igniter = message.kind == pb.RUN_KIND_IGNITER
    return from_proto(
        message,
        RunSpec,
        field="spec",
        run_id=request.run_id,
        project_id=request.project_id,
        # An igniter has one recipe only, so it need not be named.
        recipe=message.recipe or ("default" if is_igniter else ""),
        initial_weights=message.initial_weights_digest or None,
        current_package=message.current_package_digest or None,
        largest_component=not message.keep_all_components,
    )


def run_to_proto(run: Run, *, with_examples: bool = True) -> pb.Run:
    """A run; without its examples where there may be very many."""
    spec = run.spec
    none: tuple[Example, ...] = ()
    return to_proto(
        run,
        pb.Run,
        spec=to_proto(
            spec,
            pb.RunSpec,
            training=spec.training if with_examples else none,
            heldout=spec.heldout if with_examples else none,
            initial_weights_digest=spec.initial_weights,
            current_package_digest=spec.current_package,
            keep_all_components=not spec.largest_component,
        ),
        create_time=run.created_at,
        start_time=run.started_at,
        end_time=run.ended_at,
        latest=None if run.latest is None else metric_to_proto(run.latest),
    )


def metric_to_proto(metric: Metric) -> pb.Metric:
    """A metric in its place within the run; numbers that its process did not know stay unset."""
    return to_proto(metric.record, pb.Metric, cursor=metric.cursor, time=metric.time)
