"""Delivery of labels as results: an entry of the outbox is read, decided, delivered and marked, one at a time."""

from __future__ import annotations

import logging

from rekindle.errors import (
    AlreadyExists,
    Cancelled,
    CapacityExceeded,
    DependencyUnavailable,
    InvalidInput,
    NotFound,
    RekindleError,
)
from rekindle_servicekit import context

from rekindle_scheduler.domain.events import Event, EventKind
from rekindle_scheduler.domain.outbox import OutboxEntry, PublishRequest, decide_request
from rekindle_scheduler.domain.records import Submission
from rekindle_scheduler.ports import Inference
from rekindle_scheduler.state import State, UnitOfWork

_log = logging.getLogger(__name__)

_AT_A_TIME = 20
#: Errors that each retry would have too, for example as the mask has been erased.
_FINAL = (NotFound, InvalidInput, AlreadyExists)
#: Errors that the other entries would have now too.
_ALL_WAIT = (DependencyUnavailable, CapacityExceeded)


def deliver_pending(state: State, inference: Inference) -> int:
    """Deliver the oldest entries; their number, so that there may be more where it is not 0.

    An entry that cannot be delivered now goes behind all others, so that it holds none of them up. Raises errors that
    may pass by themselves, such as DependencyUnavailable; what was delivered before is marked.
    """
    with state.read() as uow:
        pending = uow.outbox.pending(limit=_AT_A_TIME)
    failures: list[Exception] = []
    for entry in pending:
        with context.bind(project=entry.project_id):
            try:
                _deliver(state, inference, entry)
            except Cancelled:
                raise
            except Exception as error:
                with state.write() as uow:
                    uow.outbox.defer(entry)
                if isinstance(error, _ALL_WAIT):
                    raise
                _note(error)
                failures.append(error)
    if failures and len(failures) == len(pending):
        raise failures[0]
    return len(pending) - len(failures)


def _deliver(state: State, inference: Inference, entry: OutboxEntry) -> None:
    """Deliver one entry. It is decided at the last moment: another scheduler may have delivered since."""
    with state.read() as uow:
        request = decide_request(entry, _counting(uow, entry))
    taken = request is None or _publish(inference, entry, request)
    with state.write() as uow:
        result = request.result() if request is not None and taken else None
        uow.outbox.mark_delivered(entry, result)
        if not taken:
            uow.events.add(
                Event(
                    project_id=entry.project_id,
                    kind=EventKind.RESULT_NOT_PUBLISHED,
                    message="a label could not be delivered as a result: inference does not take it",
                    details={"case_id": entry.case_id},
                )
            )


def _note(error: Exception) -> None:
    if isinstance(error, RekindleError):
        _log.warning("a result waits: %s", error, extra={"action": "publish.waiting", "reason": error.reason})
    else:
        _log.error("delivering a result failed", exc_info=error, extra={"action": "publish.error"})


def _counting(uow: UnitOfWork, entry: OutboxEntry) -> Submission | None:
    """The label that counts; None where there is none, or where the case was erased."""
    try:
        case = uow.cases.get(entry.project_id, entry.case_id)
    except NotFound:
        return None
    if case.submission_id is None:
        return None
    return uow.submissions.get(entry.project_id, case.submission_id)


def _publish(inference: Inference, entry: OutboxEntry, request: PublishRequest) -> bool:
    """Whether inference took it."""
    try:
        inference.publish(entry.project_id, request)
    except _FINAL as error:
        _log.error("a label is not delivered: %s", error, extra={"action": "publish.refused", "reason": error.reason})
        return False
    return True
