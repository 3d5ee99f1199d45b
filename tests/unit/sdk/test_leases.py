"""Leases: kept alive, given back, written down, lost."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest
from fake_world import World
from rekindle.api.common.v1 import common_pb2 as common
from rekindle.api.scheduler.v1 import records_pb2 as records
from rekindle.errors import DependencyUnavailable, InvalidInput, LeaseLost
from rekindle.leases import Lease
from rekindle.projects import Project
from rekindle.records import NoCase
from rekindle.timer import TimeSegment

SEGMENT = TimeSegment(
    kind="editing",
    active_seconds=61.25,
    start_time=datetime(2026, 3, 1, 9, 30, 0, 123456, tzinfo=UTC),
    source="simulated",
    tool="3d-slicer 5.8",
)


def until(condition: Callable[[], bool], timeout_s: float = 5.0) -> None:
    """Waits for something that another thread does."""
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.01)


def test_lease_brings_image_and_coarse_label(lease: Lease) -> None:
    """Both files arrive as they were stored."""
    assert b"image bytes" == lease.image().data
    coarse = lease.coarse_label()
    assert coarse is not None
    assert b"coarse bytes" == coarse.data


def test_case_without_coarse_label_has_none(project: Project) -> None:
    """A case that no model has labelled is drawn from nothing."""
    assert project.lease(project.add_case(b"scan").id).coarse_label() is None


def test_submission_carries_mask_statuses_and_time(lease: Lease, world: World) -> None:
    """The receipt is of the uploaded mask; organs left out count as edited; the time is the one given."""
    submission = lease.submit(b"mask", {"spleen": "out_of_view"}, time_segments=[SEGMENT])
    (request,) = world.requests("Submit")
    (upload,) = (header for header in _headers(world) if header.kind == common.VOLUME_KIND_MASK)
    assert b"mask" == world.volumes[submission.mask_volume_id][1]
    assert (lease.case.volume_id, lease.case.coarse_mask_volume_id) == (
        upload.image_volume_id,
        upload.coarse_mask_volume_id,
    )
    assert {"liver": common.ORGAN_STATUS_EDITED, "spleen": common.ORGAN_STATUS_OUT_OF_VIEW} == {
        state.organ_id: state.status for state in request.organ_states
    }
    assert [61.25] == [segment.active_seconds for segment in request.time_segments]
    assert pytest.approx(61.25 / 60) == submission.minutes


def test_organ_that_the_project_lacks_is_refused_before_the_upload(lease: Lease, world: World) -> None:
    """A misspelt organ costs no upload and names the organs there are."""
    with pytest.raises(InvalidInput, match=r"\['spleeen'\].*\['liver', 'spleen'\]"):
        lease.submit(b"mask", {"spleeen": "absent"})
    with pytest.raises(InvalidInput, match="'gone' is not one of: edited, accepted"):
        lease.submit(b"mask", {"spleen": "gone"})  # type: ignore[dict-item]
    assert [common.VOLUME_KIND_IMAGE] == [header.kind for header in _headers(world)]


def test_submitting_again_after_a_failure_is_the_same_submission(lease: Lease, world: World) -> None:
    """When the answer was lost, a second `submit` repeats upload and request instead of making new ones."""
    world.failures["Submit"] = [DependencyUnavailable("gone")] * 3
    with pytest.raises(DependencyUnavailable):
        lease.submit(b"mask", time_segments=[SEGMENT])
    lease.submit(b"mask", time_segments=[SEGMENT])
    assert 1 == len({request.SerializeToString() for request in world.requests("Submit")})
    assert 1 == len({header.request_id for header in _headers(world) if header.kind == 2})


def test_another_mask_is_another_request(lease: Lease, world: World) -> None:
    """After a refusal, the corrected attempt does not pass under the refused one's request id."""
    world.failures["Submit"] = [InvalidInput("the spleen is stated absent, but the mask has one")]
    with pytest.raises(InvalidInput):
        lease.submit(b"mask", {"spleen": "absent"})
    lease.submit(b"mask", {"spleen": "edited"})
    assert 2 == len({request.request_id for request in world.requests("Submit")})


def test_block_renews_while_it_lasts(project: Project, ready_case: str, world: World) -> None:
    """The heartbeat renews at a third of the lease's length, for its whole length each time."""
    world.lease_s = 1.2
    with project.lease(ready_case) as lease:
        first = lease.expires
        until(lambda: len(world.requests("RenewLease")) >= 2)
        assert lease.expires > first
        lease.submit(b"mask")
    assert {1.2} == {request.duration.ToNanoseconds() / 1e9 for request in world.requests("RenewLease")}


def test_renewal_does_not_trust_the_local_clock(project: Project, ready_case: str, world: World) -> None:
    """A lease of a service whose clock is an hour behind is not renewed in a frenzy."""
    lease_proto = world.new_lease(world.cases[ready_case])
    lease_proto.start_time.seconds -= 3600
    lease_proto.expire_time.seconds -= 3600
    with Lease(project._services, lease_proto, project.organs) as lease:
        time.sleep(0.2)
        assert [] == world.requests("RenewLease")
        lease.submit(b"mask")


def test_block_without_submission_gives_the_case_back(lease: Lease, world: World) -> None:
    """Leaving the block releases the lease; time measured so far goes along."""
    with lease:
        lease.timer.restore([SEGMENT])
    (released,) = world.released
    assert "ended without a submission" == released.reason
    assert 61.25 in [segment.active_seconds for segment in released.time_segments]


def test_block_that_fails_gives_the_case_back_and_raises(lease: Lease, world: World) -> None:
    """The caller's own error wins; the case is free again."""
    with pytest.raises(ZeroDivisionError), lease:
        raise ZeroDivisionError
    assert 1 == len(world.released)


def test_block_with_submission_releases_nothing(lease: Lease, world: World) -> None:
    """A submission ends the lease and its heartbeat."""
    with lease:
        lease.submit(b"mask")
    assert ([], 1) == (world.released, len(world.submissions))
    heartbeat = lease._heartbeat
    assert heartbeat is not None
    heartbeat.join(2)
    assert not heartbeat.is_alive()
    assert lease.lost is None


def test_lease_lost_in_the_block_surfaces(project: Project, ready_case: str, world: World) -> None:
    """When the heartbeat learns that the lease is gone, a block without a submission ends with LeaseLost."""
    world.lease_s = 1.0
    lease = project.lease(ready_case)
    world.leases[lease.id].state = records.LEASE_STATE_EXPIRED
    with pytest.raises(LeaseLost, match="the lease has ended"), lease:
        until(lambda: lease.lost is not None)
    assert [] == world.released


def test_lease_that_could_not_be_renewed_is_lost(project: Project, ready_case: str, world: World) -> None:
    """A service that stays away until the lease has run out costs the lease, and the error says why."""
    world.lease_s = 1.0
    lease = project.lease(ready_case)
    world.failures["RenewLease"] = [DependencyUnavailable("the scheduler restarts")] * 100
    with pytest.raises(LeaseLost, match="before it ran out: the scheduler restarts"), lease:
        until(lambda: lease.lost is not None)


def test_submission_of_a_lost_lease_names_the_draft(lease: Lease, world: World) -> None:
    """LeaseLost of a submission tells where the label is kept, and the block does not try to release."""
    world.failures["Submit"] = [LeaseLost("taken by another", metadata={"draft_submission_id": "draft-9"})]
    with pytest.raises(LeaseLost) as caught, lease:
        lease.submit(b"mask")
    assert "draft-9" == caught.value.metadata["draft_submission_id"]
    assert [] == world.released


def test_next_case_or_a_reason(project: Project, ready_case: str) -> None:
    """The ready case is leased; after that the reason for there being none is told."""
    lease = project.try_lease_next()
    assert isinstance(lease, Lease)
    assert ready_case == lease.case.id
    none = project.try_lease_next()
    assert isinstance(none, NoCase)
    assert ("preparing", "the model is being trained", 0.01) == (
        none.reason,
        none.message,
        none.retry_after_s,
    )
    lease.submit(b"mask")
    assert project.lease_next() is None


def _headers(world: World) -> list[Any]:
    return [part.header for part in world.requests("UploadVolume")]
