"""Sessions: several cases at once."""

from __future__ import annotations

from fake_world import World
from rekindle.api.scheduler.v1 import annotation_pb2 as annotation
from rekindle.projects import Project
from rekindle.sessions import Session


def test_session_gives_its_leases_in_order_with_their_own_files(project: Project, world: World) -> None:
    """Each lease once, while the files of the cases after it are fetched already."""
    images = [b"first", b"second", b"third", b"fourth"]
    cases = [project.add_case(image) for image in images]
    leases = [world.new_lease(world.cases[case.id]) for case in cases]
    session = Session(project._services, annotation.Session(session_id="s", leases=leases), project.organs)
    expected = [(case.id, image) for case, image in zip(cases, images, strict=True)]
    assert expected == [(lease.case.id, lease.image().data) for lease in session]
