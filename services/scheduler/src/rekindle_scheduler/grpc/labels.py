"""What a request says of a label, handed in or unfinished."""

from __future__ import annotations

from collections.abc import Callable

from rekindle.api.scheduler.v1 import annotation_pb2, scheduler_pb2

from rekindle_scheduler import wire
from rekindle_scheduler.domain.ids import LeaseId
from rekindle_scheduler.domain.volumes import Receipt
from rekindle_scheduler.usecases.submissions import Label


def label_from_api(
    request: scheduler_pb2.SubmitRequest | annotation_pb2.SaveDraftRequest,
) -> Callable[[Receipt], Label]:
    """The label, once its receipt is there; InvalidInput at once where the request's words are unknown."""
    states = wire.organ_states_from_api(request.organ_states)
    segments = wire.segments_from_api(request.time_segments)

    def label(receipt: Receipt) -> Label:
        return Label(
            lease_id=LeaseId(request.lease_id),
            fencing_token=request.fencing_token,
            receipt=receipt,
            organ_states=states,
            time_segments=segments,
        )

    return label
