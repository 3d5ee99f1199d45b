"""Errors and retries of the client."""

from __future__ import annotations

import time
from typing import Any

import grpc
import pytest
from fake_world import World
from rekindle import errors
from rekindle._call import Caller, Retry
from rekindle.client import Client
from rekindle.errors import FieldViolation, RekindleError
from rekindle.projects import Project

ERRORS = [
    errors.InvalidInput,
    errors.NotFound,
    errors.AlreadyExists,
    errors.IllegalTransition,
    errors.ModelNotReady,
    errors.LeaseLost,
    errors.VersionConflict,
    errors.IntegrityError,
    errors.Unauthenticated,
    errors.PermissionDenied,
    errors.Cancelled,
    errors.DeadlineExceeded,
    errors.InternalError,
]


@pytest.mark.parametrize("error_class", ERRORS, ids=lambda error_class: error_class.__name__)
def test_error_arrives_as_its_own_class(project: Project, world: World, error_class: Any) -> None:
    """What a service raises is what the client raises, with reason, metadata and violations, after one try."""
    sent = error_class(
        "no",
        reason="SPECIAL",
        metadata={"draft_submission_id": "7"},
        violations=[FieldViolation("organs[0].id", "is empty")],
    )
    world.failures["GetProject"] = [sent]
    with pytest.raises(error_class) as caught:
        project.refresh()
    assert type(caught.value) is error_class
    assert (sent.message, sent.reason, sent.metadata, sent.violations) == (
        caught.value.message,
        caught.value.reason,
        caught.value.metadata,
        caught.value.violations,
    )
    assert 1 == len(world.requests("GetProject"))


@pytest.mark.parametrize("error_class", [errors.CapacityExceeded, errors.DependencyUnavailable])
def test_passing_failure_is_tried_again_with_the_same_request(
    client: Client, project: Project, world: World, error_class: Any
) -> None:
    """UNAVAILABLE and RESOURCE_EXHAUSTED are tried again under the request_id of the first try."""
    world.failures["StartProject"] = [error_class("busy"), error_class("busy")]
    assert "igniting" == project.start().state
    request_ids = [request.request_id for request in world.requests("StartProject")]
    assert 3 == len(request_ids)
    assert 1 == len(set(request_ids))


def test_failure_that_stays_is_raised_after_the_last_attempt(project: Project, world: World) -> None:
    """The client gives up after its number of attempts, with the service's own error."""
    world.failures["GetProject"] = [errors.CapacityExceeded(f"full {n}") for n in range(5)]
    with pytest.raises(errors.CapacityExceeded, match="full 2"):
        project.refresh()
    assert 3 == len(world.requests("GetProject"))


def test_service_hint_decides_the_wait() -> None:
    """RetryInfo wins over the client's own back-off."""
    waited: list[float] = []
    outcomes: list[Any] = [errors.CapacityExceeded("full", retry_after_s=12.5), "done"]

    def call() -> str:
        outcome = outcomes.pop(0)
        if isinstance(outcome, RekindleError):
            raise outcome
        return outcome

    assert "done" == Caller(sleep=waited.append).repeat(call)
    assert [12.5] == waited


def test_service_hint_travels_in_the_answer(project: Project, world: World) -> None:
    """A hint in RetryInfo delays the next try by at least as long."""
    world.failures["GetProject"] = [errors.CapacityExceeded("full", retry_after_s=0.3)]
    before = time.monotonic()
    project.refresh()
    assert time.monotonic() - before >= 0.3


def test_hint_of_hours_is_left_to_the_caller(project: Project, world: World) -> None:
    """A service that asks for a long wait is neither waited for nor bothered before its time."""
    world.failures["GetProject"] = [errors.CapacityExceeded("full", retry_after_s=7200)]
    with pytest.raises(errors.CapacityExceeded) as caught:
        project.refresh()
    assert 7200 == caught.value.retry_after_s
    assert 1 == len(world.requests("GetProject"))


def test_status_without_details_keeps_its_meaning(project: Project, world: World) -> None:
    """A bare status, as of a proxy, becomes the class of its code."""
    world.failures["GetProject"] = [grpc.StatusCode.PERMISSION_DENIED]
    with pytest.raises(errors.PermissionDenied, match="planned"):
        project.refresh()


def test_service_that_does_not_listen_is_named() -> None:
    """A wrong address says which service at which address, not gRPC's inner words alone."""
    with Client.connect("127.0.0.1:1", retry=Retry(attempts=1)) as client:
        with pytest.raises(errors.DependencyUnavailable, match=r"the scheduler service at 127\.0\.0\.1:1 "):
            client.project("x")
        with pytest.raises(errors.DependencyUnavailable, match=r"the inference service at 127\.0\.0\.1:2 "):
            client.segment(b"x", project_id="x")


@pytest.mark.parametrize("address", ["localhost", "127.0.0.1:", "host:port", "host:70000", ""])
def test_address_without_a_port_is_refused(address: str) -> None:
    """What is not host:port is said before any call, with an example."""
    with pytest.raises(errors.InvalidInput, match=r"is not host:port; .* 127\.0\.0\.1:50051"):
        Client.connect(address)


def test_every_page_is_read(client: Client) -> None:
    """Lists go on until the service has no next page."""
    made = [client.create_project(f"p{n}", []).id for n in range(3)]
    assert made == [project.id for project in client.projects()]


def test_unknown_enum_values_are_tolerated(project: Project, world: World) -> None:
    """States of a newer service are readable as such and break nothing."""
    world.projects[project.id].state = 77
    world.projects[project.id].target_modality = 9
    world.projects[project.id].policy.ordering = 55
    project.refresh()
    assert ("unknown-77", "UNKNOWN-9", "unknown-55") == (
        project.state,
        project.modality,
        project.policy.ordering,
    )


def test_stopping_a_watch_ends_the_call(project: Project, world: World) -> None:
    """Leaving the loop early cancels the stream."""
    world.events = [_event(cursor) for cursor in (1, 2, 3)]
    stream = project.watch()
    assert 1 == next(stream).cursor
    stream.close()  # type: ignore[attr-defined]
    assert 1 == len(world.requests("WatchRounds"))


def test_watch_goes_on_after_the_last_event(project: Project, world: World) -> None:
    """When the service was away for a moment, no event is lost and none comes twice."""
    world.events = [_event(1), _event(2)]
    stream = project.watch()
    seen = [next(stream).cursor, next(stream).cursor]
    stream.close()  # type: ignore[attr-defined]
    world.events += [_event(3)]
    world.failures["WatchRounds"] = [errors.DependencyUnavailable("restarting")]
    seen += [event.cursor for event in project.watch(after_cursor=seen[-1])]
    assert [1, 2, 3] == seen


def test_follow_resumes_behind_what_it_has_seen() -> None:
    """A stream that breaks in the middle is opened again with the cursor of its last answer."""
    opened: list[int] = []

    def watch(cursor: int) -> Any:
        opened.append(cursor)
        yield _event(cursor + 1)
        if len(opened) < 3:
            raise errors.DependencyUnavailable("gone")

    events = list(Caller(sleep=lambda _: None).follow(watch, 10))
    assert [11, 12, 13] == [event.cursor for event in events]
    assert [10, 11, 12] == opened


def _event(cursor: int) -> Any:
    from rekindle.api.scheduler.v1 import records_pb2

    return records_pb2.RoundEvent(cursor=cursor, kind="case-submitted", message=f"event {cursor}", round=1)
