"""Whole projects in a small world of random annotators, faults and operators, driven by `next_step` alone."""

from __future__ import annotations

from dataclasses import replace
from random import Random
from types import SimpleNamespace
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from rekindle_scheduler.domain import steps
from rekindle_scheduler.domain.enums import CaseState, HeldOutSchedule, ProjectState, ReviewState, RoundState
from rekindle_scheduler.domain.policy import Policy
from rekindle_scheduler.domain.reconcile import next_step, working_round
from scheduler_world import OPEN, POLICIES, World, drive


@settings(max_examples=150, deadline=None)
@given(policy=POLICIES, cases=st.integers(0, 16), seed=st.integers(0, 2**32))
def test_every_project_comes_to_its_end(make: SimpleNamespace, policy: Policy, cases: int, seed: int):
    """Whatever annotators, operators and faults do: complete, everything labelled, each round once and in order."""
    world = World(make, policy, cases, Random(seed))
    drive(world)
    assert not world.project.registration_open
    assert {RoundState.CLOSED} == {r.state for r in world.rounds}
    assert set() == {c.state for c in world.cases.values()} - {CaseState.LABELLED, CaseState.PUT_OFF}
    for kind in (steps.OpenSelection, steps.CutSnapshot, steps.CloseRound, steps.DecidePromotion, steps.OpenRound):
        numbers = [step.round for step in world.log if isinstance(step, kind)]
        assert sorted(set(numbers)) == numbers


@settings(max_examples=60, deadline=None)
@given(
    policy=POLICIES.filter(lambda p: p.held_out.schedule == HeldOutSchedule.LAST),
    cases=st.integers(2, 16),
    seed=st.integers(0, 2**32),
)
def test_a_calm_project_labels_all_in_order(make: SimpleNamespace, policy: Policy, cases: int, seed: int):
    """With registration closed first, one patient annotator and schedule `last`: no run follows the test set."""
    world = World(make, policy, cases, Random(seed))
    world.close_registration()
    world.faults = 0
    for _ in range(5_000):
        if world.project.state == ProjectState.COMPLETE:
            break
        step = next_step(world.view())
        world.apply(step)
        if isinstance(step, steps.Wait):
            moving = working_round(tuple(world.rounds))
            assert moving is not None
            world.leased.add(next(i for i in moving.selected_case_ids if i not in world.labels))
            case_id = world.leased.pop()
            world.labels[case_id] = (moving.number, world.make.submission(case_id, {"liver": 0.9}))
            world.restate(case_id)
    assert {CaseState.LABELLED} == {case.state for case in world.cases.values()}
    held_out = {case_id for case_id, case in world.cases.items() if case.held_out}
    sides = [{case_id in held_out for case_id in r.selected_case_ids} for r in world.rounds[1:]]
    assert ([{False}] * (len(sides) - 1) + [{True}] if held_out else [{False}] * len(sides)) == sides
    cuts = [step.round for step in world.log if isinstance(step, steps.CutSnapshot)]
    assert [r.number for r in world.rounds[1:] if not held_out or r is not world.rounds[-1]] == cuts


class LabelWorld(World):
    """Labels wait for reviewers, are rejected, withdrawn and corrected, a few times each."""

    def __init__(self, make: SimpleNamespace, policy: Policy, cases: int, chance: Random) -> None:
        super().__init__(make, policy, cases, chance)
        self.changes_of_mind = 12
        self.frozen: set[str] = set()
        self.cut_labels: dict[int, str | None] = {}

    def somebody_acts(self) -> None:
        if self.pending and self.chance.random() < 0.6:
            self.review(self.chance.choice(sorted(self.pending)))
        elif self.labels and self.changes_of_mind and self.chance.random() < 0.2:
            self.changes_of_mind -= 1
            self.chance.choice([self.correct, self.take_back, self.take_back])()
        elif not self.pending or self.leased or self.project.state == ProjectState.STALLED:
            super().somebody_acts()
        else:
            self.review(self.chance.choice(sorted(self.pending)))

    def submit_or_expire(self, case_id: str) -> None:
        self.leased.discard(case_id)
        if self.chance.random() < 0.9:
            submission = self.make.submission(case_id, {"liver": 0.9}, review_state=ReviewState.PENDING)
            self.pending[case_id] = submission
        self.restate(case_id)

    def review(self, case_id: str) -> None:
        submission = self.pending.pop(case_id)
        if not self.changes_of_mind or self.chance.random() < 0.8:
            self.count(case_id, replace(submission, review_state=ReviewState.ACCEPTED))
        else:
            self.changes_of_mind -= 1
        self.restate(case_id)

    def count(self, case_id: str, submission: Any) -> None:
        """For the round that is open, or for one that is begun for it."""
        if self.rounds[-1].state not in (RoundState.SELECTING, RoundState.ANNOTATING):
            self.rounds.append(self.make.round(len(self.rounds), RoundState.SELECTING))
            self.project = replace(self.project, state=ProjectState.ACTIVE)
        self.labels[case_id] = (self.rounds[-1].number, submission)
        self.cases[case_id] = replace(self.cases[case_id], submission_id=submission.submission_id)

    def correct(self) -> None:
        case_id = self.chance.choice(sorted(self.labels))
        again = self.make.submission(case_id, {"liver": 0.9}, mask_digest=self.make.sha(f"{case_id} {len(self.log)}"))
        self.count(case_id, again)

    def take_back(self) -> None:
        """Withdrawn, or rejected after it was in a snapshot."""
        case_id = self.chance.choice(sorted(self.labels))
        del self.labels[case_id]
        self.cases[case_id] = replace(self.cases[case_id], submission_id=None)
        self.restate(case_id)

    def do_CutSnapshot(self, step: steps.CutSnapshot) -> None:  # noqa: N802 - named after the step
        states = {submission.review_state for _, submission in self.labels.values()}
        assert {ReviewState.ACCEPTED} == states, "only what was accepted is trained on"
        earlier = dict(self.cut_labels)
        super().do_CutSnapshot(step)
        self.cut_labels[step.round] = self.rounds[step.round].snapshot_digest
        assert earlier.items() <= {r.number: r.snapshot_digest for r in self.rounds}.items(), "snapshots stay"


@settings(max_examples=80, deadline=None)
@given(policy=POLICIES, cases=st.integers(0, 12), seed=st.integers(0, 2**32))
def test_projects_with_reviews_and_corrections_come_to_their_end(
    make: SimpleNamespace, policy: Policy, cases: int, seed: int
):
    """However often labels are rejected, taken back and corrected: complete, all labelled, nothing in review."""
    world = LabelWorld(make, policy, cases, Random(seed))
    drive(world)
    assert {RoundState.CLOSED} == {r.state for r in world.rounds}
    assert not {case.state for case in world.cases.values()} & set(OPEN)
    for kind in (steps.OpenSelection, steps.CutSnapshot, steps.CloseRound, steps.DecidePromotion):
        numbers = [step.round for step in world.log if isinstance(step, kind)]
        assert sorted(set(numbers)) == numbers
