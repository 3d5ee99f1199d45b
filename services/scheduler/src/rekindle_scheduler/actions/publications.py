"""Delivering labels as results: what is owed is read, decided, carried out, and written down, one case at a time."""

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
from rekindle_scheduler.domain.publications import Delivery, Publication, decide_delivery
from rekindle_scheduler.domain.records import Submission
from rekindle_scheduler.ports import Inference
from rekindle_scheduler.state import State, UnitOfWork

_log = logging.getLogger(__name__)

_AT_A_TIME = 20
#: The same call would be refused again, for example as the mask has been erased.
_FINAL = (NotFound, InvalidInput, AlreadyExists)
#: The others would fare no better now.
_ALL_WAIT = (DependencyUnavailable, CapacityExceeded)


def deliver_owed(state: State, inference: Inference) -> int:
    """Deliver the longest owed; how many that were, so that there may be more where it is not 0.

    One that cannot be delivered now goes behind all others, so that it holds none of them up. Raises what may pass by
    itself, such as DependencyUnavailable; what was delivered before is written down.
    """
    with state.read() as uow:
        owed = uow.publications.owed(limit=_AT_A_TIME)
    failures: list[Exception] = []
    for publication in owed:
        with context.bind(project=publication.project_id):
            try:
                _settle(state, inference, publication)
            except Cancelled:
                raise
            except Exception as error:
                with state.write() as uow:
                    uow.publications.postpone(publication)
                if isinstance(error, _ALL_WAIT):
                    raise
                _note(error)
                failures.append(error)
    if failures and len(failures) == len(owed):
        raise failures[0]
    return len(owed) - len(failures)


def _settle(state: State, inference: Inference, publication: Publication) -> None:
    """Decided at the last moment: another scheduler may have delivered what came since."""
    with state.read() as uow:
        delivery = _decide(uow, publication)
    delivered = delivery is None or _deliver(inference, publication, delivery)
    with state.write() as uow:
        made = delivery.published() if delivery is not None and delivered else None
        uow.publications.settle(publication, made)
        if not delivered:
            uow.events.add(
                Event(
                    project_id=publication.project_id,
                    kind=EventKind.RESULT_NOT_PUBLISHED,
                    message="a label could not be delivered as a result: inference does not take it",
                    details={"case_id": publication.case_id},
                )
            )


def _note(error: Exception) -> None:
    if isinstance(error, RekindleError):
        _log.warning("a result waits: %s", error, extra={"action": "publish.waiting", "reason": error.reason})
    else:
        _log.error("delivering a result failed", exc_info=error, extra={"action": "publish.error"})


def _decide(uow: UnitOfWork, publication: Publication) -> Delivery | None:
    return decide_delivery(publication, _counting(uow, publication))


def _counting(uow: UnitOfWork, publication: Publication) -> Submission | None:
    try:
        case = uow.cases.get(publication.project_id, publication.case_id)
    except NotFound:
        return None  # erased since
    if case.submission_id is None:
        return None
    return uow.submissions.get(publication.project_id, case.submission_id)


def _deliver(inference: Inference, publication: Publication, delivery: Delivery) -> bool:
    """Whether inference took it."""
    try:
        inference.publish(publication.project_id, delivery)
    except _FINAL as error:
        _log.error("a label is not delivered: %s", error, extra={"action": "publish.refused", "reason": error.reason})
        return False
    return True
