"""Policies and organs: as they are given, sent and shown."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, replace
from typing import Any

import pytest
from fake_world import World
from rekindle.api.common.v1 import common_pb2 as common
from rekindle.api.scheduler.v1 import records_pb2 as records
from rekindle.client import Client
from rekindle.config import HeldOut, Organ, Policy, TrainingWindow
from rekindle.errors import VersionConflict
from rekindle.projects import Project

POLICIES = [
    Policy(sizes=(2, 2, 3), held_out=HeldOut(number=4, schedule="first")),
    Policy(geometric=(4, 1.5), ordering="hard-first", held_out=HeldOut(fraction=0.25), review_required=True),
    Policy(
        sizes=(2,),
        training_window=TrainingWindow(
            start="20:00", end="06:00", time_zone="Europe/Berlin", days=("monday", "sunday")
        ),
        gpu_seconds_budget=7200.0,
    ),
    Policy(
        minutes_per_round=45.0, preset="paper", recipe="paper", seed=3, largest_component=False, detached_lease_days=2
    ),
]


@pytest.mark.parametrize("policy", POLICIES, ids=["sizes", "geometric", "limits", "minutes"])
def test_policy_survives_the_wire(client: Client, policy: Policy) -> None:
    """What was set is what the project shows, beside the scheduler's defaults for the rest."""
    shown = asdict(client.create_project("p", [], policy=policy).policy)
    assert _given(asdict(policy)) == _given(shown, like=asdict(policy))


def test_only_what_was_given_of_a_policy_is_sent(client: Client, world: World) -> None:
    """The rest is unset, so that the scheduler's defaults hold, whatever they are."""
    client.create_project("p", [], policy=Policy(seed=7, held_out=HeldOut(number=3)))
    (request,) = world.requests("CreateProject")
    training = records.TrainingPolicy(seed=7, window=common.TrainingWindow(), gpu_seconds_budget=0.0)
    assert records.Policy(held_out=records.HeldOutPolicy(number=3), training=training) == request.policy


def test_shown_policy_can_be_sent_back(client: Client, project: Project) -> None:
    """A policy that the scheduler answered, with one rule replaced, changes this rule alone."""
    before = project.policy
    assert replace(before, margin_dice=0.0) == project.update_policy(replace(before, margin_dice=0.0)).policy


def test_organs_survive_the_wire(client: Client) -> None:
    """Values and coded concepts come back."""
    organs = (Organ("liver", 1, ("SCT", "10200004", "Liver")), Organ("spleen", 2))
    assert organs == client.project(client.create_project("p", organs).id).organs


def test_stale_policy_is_refused(client: Client, project: Project) -> None:
    """Two people who change the policy at once do not overwrite each other unseen."""
    other = client.project(project.id)
    project.update_policy(Policy(sizes=[2]))
    with pytest.raises(VersionConflict):
        other.update_policy(Policy(sizes=[5]))
    assert (2,) == other.refresh().policy.sizes


def _given(policy: Mapping[str, Any], like: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """What is not None in a policy, or not None in the one that it is to be `like`."""
    pattern = policy if like is None else like
    return {
        name: _given(policy[name], value) if isinstance(value, Mapping) else policy[name]
        for name, value in pattern.items()
        if value is not None
    }
