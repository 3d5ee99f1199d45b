"""Seed cases and target cases of a project."""

from __future__ import annotations

from fake_world import World
from rekindle.projects import Project


def test_registration_again_answers_the_same_cases(project: Project, world: World) -> None:
    """Registering volumes twice makes no second case; group keys arrive."""
    volumes = [(project.upload_image(name.encode()), f"patient {name}") for name in "ab"]
    first = project.register_cases(volumes)
    assert first == project.register_cases(volumes)
    assert ["patient a", "patient b"] == [case.group_key for case in project.cases()]


def test_seed_case_again_is_the_same_one(project: Project, world: World) -> None:
    """Adding the same files twice is one seed case."""
    first = project.add_seed_case(b"scan", b"label", modality="MR")
    assert first == project.add_seed_case(b"scan", b"label", modality="MR")
    assert [first] == [seed.seed_case_id for seed in project.seed_cases()]
