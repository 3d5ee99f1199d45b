"""Tickets: leases that are resumed in another process or tool."""

from __future__ import annotations

import json
from datetime import UTC, datetime

import pytest
from fake_world import World
from rekindle import tickets
from rekindle.api.scheduler.v1 import records_pb2 as records
from rekindle.client import Client
from rekindle.errors import InvalidInput, LeaseLost
from rekindle.leases import Lease
from rekindle.projects import Project
from rekindle.timer import TimeSegment

SEGMENT = TimeSegment(
    kind="editing",
    active_seconds=61.25,
    start_time=datetime(2026, 3, 1, 9, 30, 0, 123456, tzinfo=UTC),
    source="simulated",
    tool="3d-slicer 5.8",
)


def test_a_renewed_lease_keeps_the_label_that_was_shown(project: Project, ready_case: str, world: World) -> None:
    """A newer coarse label of the case does not become the one that the annotator is said to have corrected."""
    lease = project.lease(ready_case)
    shown = lease.case.coarse_mask_volume_id
    world.leases[lease.id].case.coarse_label.mask_volume_id = "newer"
    lease.renew()
    assert shown == lease.case.coarse_mask_volume_id
    again = project.resume(lease.ticket(), exclusive=False)
    assert shown == again.case.coarse_mask_volume_id


def test_ticket_keeps_lease_and_time(lease: Lease, project: Project, client: Client) -> None:
    """A lease written down in one process goes on in another with its time intact."""
    lease.timer.restore([SEGMENT])
    resumed = client.project(project.id).resume(lease.ticket(), exclusive=False)
    assert (lease.id, lease.fencing_token, [SEGMENT]) == (
        resumed.id,
        resumed.fencing_token,
        resumed.timer.segments(),
    )
    assert 61.25 / 60 == pytest.approx(resumed.submit(b"mask").minutes)


def test_lease_that_ran_out_can_still_be_handed_in(project: Project, lease: Lease, world: World) -> None:
    """The ticket alone suffices to submit; the service decides whether the label counts."""
    ticket = lease.ticket()
    world.leases[lease.id].state = records.LEASE_STATE_EXPIRED
    assert [] == project.my_leases()
    resumed = project.resume(ticket, exclusive=False)
    with pytest.raises(LeaseLost):
        resumed.submit(b"mask")
    (request,) = world.requests("Submit")
    assert (lease.id, lease.fencing_token) == (request.lease_id, request.fencing_token)


@pytest.mark.parametrize("text", ["", "{}", "[]", '{"lease": 3, "held_s": 1, "segments": []}', "null"])
def test_text_that_is_not_a_ticket_is_refused(project: Project, text: str) -> None:
    """Anything but a ticket is named as such."""
    with pytest.raises(InvalidInput, match="not a ticket of a lease"):
        project.resume(text, exclusive=False)


def test_ticket_of_another_project_is_refused(client: Client, lease: Lease) -> None:
    """A lease is resumed in its own project."""
    other = client.create_project("Other", [])
    with pytest.raises(InvalidInput, match="another project"):
        other.resume(lease.ticket(), exclusive=False)


def test_ticket_is_json_with_the_case_in_it(lease: Lease) -> None:
    """A person can read in it which case it is of."""
    assert lease.case.id == json.loads(lease.ticket())["lease"]["case"]["case_id"]


def test_resuming_by_id_makes_this_process_the_holder(project: Project, lease: Lease, world: World) -> None:
    """The service is told, with the tool's name; the fencing token of before is worth nothing any more."""
    resumed = project.resume(lease.id, tool="viewer 2")
    (request,) = world.requests("TakeUpLease")
    assert (lease.id, "viewer 2") == (request.lease_id, request.tool)
    assert lease.fencing_token < resumed.fencing_token


def test_resuming_a_ticket_tells_the_service_unless_it_is_shared(
    client: Client, project: Project, lease: Lease, world: World
) -> None:
    """`Client.resume` and `Project.resume` take the lease over; without `exclusive` nothing is told."""
    project.resume(lease.ticket(), exclusive=False)
    assert [] == world.requests("TakeUpLease")
    project.resume(lease.ticket())
    client.resume(lease.ticket())
    assert [lease.id, lease.id] == [request.lease_id for request in world.requests("TakeUpLease")]


def test_old_names_still_work_and_say_the_new_ones(project: Project, lease: Lease) -> None:
    """Programs of before go on, with a warning that names what to write."""
    with pytest.warns(DeprecationWarning, match=r"use Lease\.ticket"):
        ticket = lease.token()
    assert lease.ticket() == ticket
    with pytest.warns(DeprecationWarning, match=r"use Project\.resume\(ticket, exclusive=False\)"):
        assert lease.id == project.resume_lease(ticket).id
    with pytest.warns(DeprecationWarning, match=r"use Project\.resume"):
        assert lease.id == project.take_up(lease.id).id
    with pytest.warns(DeprecationWarning, match=r"use Lease\.resume"):
        assert lease.take_up() is None
    with pytest.warns(DeprecationWarning, match=r"use Project\.resume"):
        lease.restore(ticket)


@pytest.mark.parametrize(
    ("old", "new"),
    [("WrittenLease", "Ticket"), ("read_token", "read_ticket"), ("write_token", "write_ticket")],
)
def test_names_of_earlier_releases_still_work(old: str, new: str) -> None:
    """Functions of the module are found by their old names too, with a warning that names the new one."""
    with pytest.warns(DeprecationWarning, match=new):
        assert getattr(tickets, new) is getattr(tickets, old)


def test_other_names_are_unknown() -> None:
    """A name that never was is refused as Python does."""
    with pytest.raises(AttributeError, match="no attribute 'read_tokens'"):
        getattr(tickets, "read_tokens")  # noqa: B009 (a type checker would refuse the attribute)
