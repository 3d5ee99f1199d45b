"""A small world of random annotators, faults and operators, driven by `next_step` alone."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from itertools import count
from random import Random
from types import SimpleNamespace
from typing import Any

from hypothesis import strategies as st
from rekindle.vocabulary import Modality, RunPackage, RunResult, RunState
from rekindle_scheduler.domain import steps
from rekindle_scheduler.domain.candidates import candidates
from rekindle_scheduler.domain.cases import Case
from rekindle_scheduler.domain.enums import (
    CaseMark,
    CaseState,
    DecisionBasis,
    HeldOutSchedule,
    ProjectState,
    RoundState,
)
from rekindle_scheduler.domain.held_out import held_out_at_close, held_out_at_registration
from rekindle_scheduler.domain.leases import case_state
from rekindle_scheduler.domain.orderings import OrderingName
from rekindle_scheduler.domain.policy import (
    GeometricSizes,
    HeldOutPolicy,
    MinutesBudget,
    Policy,
    RoundSizes,
    TrainingPolicy,
)
from rekindle_scheduler.domain.predictions import plan_predictions
from rekindle_scheduler.domain.reconcile import (
    IDLE_STEPS,
    CaseTally,
    PredictionTally,
    ProjectView,
    RoundHead,
    background_step,
    next_step,
    predecessor,
    working_round,
)
from rekindle_scheduler.domain.records import PromotionDecision, RollBackDecision, Round, TrainingRun
from rekindle_scheduler.domain.selection import select_cases
from rekindle_scheduler.domain.snapshot import cut_snapshot

ORDER = list(RoundState)
OPEN = (CaseState.REGISTERED, CaseState.READY, CaseState.LEASED, CaseState.IN_REVIEW)


def open_round(rounds: tuple[Round, ...]) -> Round | None:
    """The newest round, which new submissions count for; None when it no longer takes any."""
    newest = max(rounds, key=lambda r: r.number, default=None)
    return newest if newest is not None and RoundHead(number=newest.number, state=newest.state).is_open else None


class World:
    """Rows in dicts, one action per step, and annotators, operators and faults by chance."""

    def __init__(self, make: SimpleNamespace, policy: Policy, cases: int, chance: Random) -> None:
        self.make, self.chance, self.late = make, chance, 3
        self.project = make.project(policy=policy, state=ProjectState.IGNITING)
        self.cases: dict[str, Case] = {}
        self.labels: dict[str, tuple[int, Any]] = {}
        self.leased: set[str] = set()
        #: Handed in, waiting for a reviewer.
        self.pending: dict[str, Any] = {}
        self.rounds = [make.round(0, RoundState.TRAINING)]
        self.tasks: dict[tuple[str, str], str] = {}
        self.in_pool: set[tuple[str, str]] = set()
        self.log: list[steps.Step] = []
        self.versions = count(1)
        self.faults = 3
        self.took_over_from: dict[int, str | None] = {}
        for _ in range(cases):
            self.register()

    # -- what happens outside

    def register(self) -> None:
        n = len(self.cases) + 1
        key, digest = f"patient{n // 2}", self.make.sha(f"image{n}")
        case = self.make.case(n, None, group_key=key)
        held_out = held_out_at_registration(self.project.policy, key, digest)
        self.cases[case.case_id] = replace(case, held_out=held_out)

    def close_registration(self) -> None:
        drawn = held_out_at_close(self.project.policy, list(self.cases.values()))
        for case_id in drawn:
            self.cases[case_id] = replace(self.cases[case_id], held_out=True)
        self.project = replace(self.project, registration_open=False)

    def restate(self, case_id: str) -> None:
        case = self.cases[case_id]
        state = case_state(
            labelled=case_id in self.labels,
            leased=case_id in self.leased,
            predicted=case.coarse_label is not None,
            mark=case.mark,
            in_review=case_id in self.pending,
        )
        self.cases[case_id] = replace(case, state=state)

    def somebody_acts(self) -> None:
        """One move of an annotator or an operator; the last resort is always to go on with the work."""
        taking = open_round(tuple(self.rounds))
        if self.project.state == ProjectState.STALLED:
            self.retry()
        elif self.project.registration_open and self.chance.random() < 0.1:
            self.register() if self.late and self.chance.random() < 0.5 else self.close_registration()
            self.late -= 1
        elif self.leased and self.chance.random() < 0.7:
            self.submit_or_expire(self.chance.choice(sorted(self.leased)))
        elif taking is not None and self.chance.random() < 0.05:
            self.train_now(taking)
        else:
            self.lease(taking)

    def lease(self, taking: Round | None) -> None:
        ready = [c for c in self.cases.values() if c.state == CaseState.READY]
        selected = [c for c in ready if taking and c.round == taking.number]
        free = ready if taking and self.chance.random() < 0.2 else selected
        if free:
            case = self.chance.choice(free)
            if self.chance.random() < 0.05:
                self.cases[case.case_id] = replace(case, mark=CaseMark.PUT_OFF)
            else:
                self.leased.add(case.case_id)
            self.restate(case.case_id)

    def submit_or_expire(self, case_id: str) -> None:
        self.leased.discard(case_id)
        if self.chance.random() < 0.9:
            submission = self.make.submission(case_id, {"liver": 0.9})
            self.labels[case_id] = (self.rounds[-1].number, submission)
            self.cases[case_id] = replace(self.cases[case_id], submission_id=submission.submission_id)
        self.restate(case_id)

    def train_now(self, taking: Round) -> None:
        if taking.state == RoundState.ANNOTATING and self.count_labels(taking.number, held_out=True):
            self.rounds[-1] = replace(taking, train_requested=True)

    def retry(self) -> None:
        """Failed predictions and failed runs get another try."""
        self.tasks = {key: "pending" if state == "failed" else state for key, state in self.tasks.items()}
        working = working_round(tuple(self.rounds))
        if working is not None and working.run is not None and working.run.state == RunState.FAILED:
            self.put(working.number, run=None, run_retries=working.run_retries + 1)
        self.project = replace(
            self.project, state=ProjectState.ACTIVE if working != self.rounds[0] else ProjectState.IGNITING
        )

    # -- what the reconciler reads

    def count_labels(self, number: int, *, held_out: bool) -> int:
        mine = [case_id for case_id, (n, _) in self.labels.items() if n == number]
        return sum(held_out or not self.cases[case_id].held_out for case_id in mine)

    def view(self) -> ProjectView:
        working = working_round(tuple(self.rounds))
        number = working.number if working else -1
        states = Counter(case.state for case in self.cases.values())
        serving = self.project.active_model_version_id
        waiting = [c for c in self.cases.values() if c.state in (CaseState.REGISTERED, CaseState.READY)]
        by_task = [(c, self.tasks.get((c.case_id, serving)), (c.case_id, serving) in self.in_pool) for c in waiting]
        return ProjectView(
            project=self.project,
            rounds=tuple(self.rounds),
            cases=CaseTally(
                open=sum(states[state] for state in OPEN),
                leased=states[CaseState.LEASED],
                in_review=states[CaseState.IN_REVIEW],
                ready=states[CaseState.READY],
                open_training=sum(c.state in OPEN and not c.held_out for c in self.cases.values()),
                ready_training=sum(c.state == CaseState.READY and not c.held_out for c in self.cases.values()),
                round_open=sum(c.round == number and c.state in OPEN for c in self.cases.values()),
                round_labels=self.count_labels(number, held_out=True),
                round_training_labels=self.count_labels(number, held_out=False),
            ),
            predictions=PredictionTally(
                missing=sum(task is None for _, task, _ in by_task),
                pending=sum(task == "pending" for _, task, _ in by_task),
                pool_pending=sum(task == "pending" and pool for _, task, pool in by_task),
                failed_unlabelled=sum(task == "failed" and c.coarse_label is None for c, task, _ in by_task),
            ),
        )

    # -- what the reconciler does

    def put(self, number: int, **changes: Any) -> None:
        old = self.rounds[number]
        new = replace(old, **changes)
        assert ORDER.index(old.state) <= ORDER.index(new.state), "a round goes forward only"
        self.rounds[number] = new

    def apply(self, step: steps.Step) -> None:
        self.log.append(step)
        getattr(self, f"do_{type(step).__name__}")(step)

    def do_Wait(self, step: steps.Wait) -> None:  # noqa: N802 - named after the step
        assert step.reason

    def do_StartRun(self, step: steps.StartRun) -> None:  # noqa: N802
        self.put(step.round, run=TrainingRun(run_id=step.run_id, state=RunState.QUEUED))

    def do_PollRun(self, step: steps.PollRun) -> None:  # noqa: N802
        if self.chance.random() < 0.5:
            return
        run = self.rounds[step.round].run
        assert run is not None
        if self.faults and self.chance.random() < 0.2:
            self.faults -= 1
            self.put(step.round, run=replace(run, state=RunState.FAILED, reason="out of memory"))
            return
        package = RunPackage(modality=Modality.CT, package_digest="d")
        result = RunResult(packages=(package,), weights_digest="w")
        self.put(step.round, run=replace(run, state=RunState.SUCCEEDED, result=result))

    def do_AdvanceRound(self, step: steps.AdvanceRound) -> None:  # noqa: N802
        assert self.rounds[step.round].state == step.from_state
        self.put(step.round, state=step.to_state)

    def do_RegisterCandidate(self, step: steps.RegisterCandidate) -> None:  # noqa: N802
        self.put(step.round, candidate_model_version_id=f"v{next(self.versions)}")

    def do_DecidePromotion(self, step: steps.DecidePromotion) -> None:  # noqa: N802
        basis = self.chance.choice([DecisionBasis.HELD_OUT, DecisionBasis.PREQUENTIAL])
        promoted = step.round == 0 or self.chance.random() < 0.6
        self.put(step.round, decision=PromotionDecision(promoted=promoted, reason="by chance", basis=basis))

    def do_Activate(self, step: steps.Activate) -> None:  # noqa: N802
        assert step.expected_current == self.project.active_model_version_id
        decision = self.rounds[step.round].decision
        assert decision is not None
        assert decision.promoted, "a refused candidate never serves"
        self.took_over_from[step.round] = step.expected_current
        self.project = replace(self.project, active_model_version_id=step.model_version_id)

    def do_CheckServing(self, step: steps.CheckServing) -> None:  # noqa: N802
        to = predecessor(self.rounds[step.round - 1])
        assert self.took_over_from[step.round - 1] == to, "never back to a version that had given way before"
        back = to is not None and self.chance.random() < 0.5
        check = RollBackDecision(roll_back=back, reason="", to_model_version_id=to if back else None)
        self.put(step.round, serving_check=check)

    def do_RollBack(self, step: steps.RollBack) -> None:  # noqa: N802
        assert step.expected_current == self.project.active_model_version_id
        self.project = replace(self.project, active_model_version_id=step.model_version_id)

    def do_EnqueuePredictions(self, step: steps.EnqueuePredictions) -> None:  # noqa: N802
        self.in_pool = {key for key in self.in_pool if key[1] != step.model_version_id}
        found = [*candidates(self.project.policy, self.cases.values())]
        for task in plan_predictions(self.project.policy, step.model_version_id, found):
            key = (task.case_id, task.model_version_id)
            self.tasks.setdefault(key, "pending")
            self.in_pool |= {key} if task.in_pool else set()

    def do_PredictBatch(self, step: steps.PredictBatch) -> None:  # noqa: N802
        waiting = [
            key
            for key, state in self.tasks.items()
            if state == "pending"
            and key[1] == step.model_version_id
            and self.cases[key[0]].state in (CaseState.REGISTERED, CaseState.READY)
        ]
        assert waiting, "a batch is asked for only when there is one"
        for key in sorted(waiting, key=lambda key: key not in self.in_pool)[:4]:
            if self.faults and self.chance.random() < 0.05:
                self.faults -= 1
                self.tasks[key] = "failed"
                continue
            self.tasks[key] = "done"
            coarse = replace(self.make.coarse(self.chance.uniform(1, 14)), model_version_id=key[1])
            self.cases[key[0]] = replace(self.cases[key[0]], coarse_label=coarse)
            self.restate(key[0])

    def do_OpenRound(self, step: steps.OpenRound) -> None:  # noqa: N802
        assert len(self.rounds) == step.round
        self.rounds.append(self.make.round(step.round, RoundState.SELECTING))
        self.project = replace(self.project, state=ProjectState.ACTIVE)

    def do_OpenSelection(self, step: steps.OpenSelection) -> None:  # noqa: N802
        assert self.rounds[step.round].state == RoundState.SELECTING
        later = (CaseState.REGISTERED, CaseState.LEASED, CaseState.IN_REVIEW)
        others = sum(c.state in later for c in self.cases.values())
        found = [*candidates(self.project.policy, self.cases.values())]
        chosen = select_cases(self.project.policy, step.round, found, others_open=others)
        for rank, case in enumerate(chosen):
            self.cases[case.case_id] = replace(self.cases[case.case_id], round=step.round, rank=rank)
        self.put(
            step.round,
            state=RoundState.ANNOTATING,
            selected_case_ids=tuple(case.case_id for case in chosen),
            opening_model_version_id=self.project.active_model_version_id,
        )

    def do_CutSnapshot(self, step: steps.CutSnapshot) -> None:  # noqa: N802
        assert self.rounds[step.round].state == RoundState.ANNOTATING
        labelled = [(self.cases[case_id], submission) for case_id, (_, submission) in self.labels.items()]
        snapshot = cut_snapshot(self.project, labelled, [])
        held_out = {case.image_digest for case in self.cases.values() if case.held_out}
        assert held_out.isdisjoint(example.image_digest for example in snapshot.training)
        assert snapshot.training
        self.put(step.round, state=RoundState.TRAINING, snapshot_digest=snapshot.digest)
        if step.open_next:
            assert len(self.rounds) == step.round + 1
            self.rounds.append(self.make.round(step.round + 1, RoundState.SELECTING))

    def do_SkipTraining(self, step: steps.SkipTraining) -> None:  # noqa: N802
        decision = PromotionDecision(promoted=False, reason=step.reason, basis=DecisionBasis.PREQUENTIAL)
        self.put(step.round, state=RoundState.CLOSED, decision=decision)

    def do_CloseRound(self, step: steps.CloseRound) -> None:  # noqa: N802
        assert self.rounds[step.round].state == RoundState.PREDICTING
        serving = self.project.active_model_version_id
        self.put(step.round, state=RoundState.CLOSED, serving_model_version_id=serving)
        if step.round == 0:
            self.project = replace(self.project, state=ProjectState.ACTIVE)

    def do_CompleteProject(self, step: steps.CompleteProject) -> None:  # noqa: N802
        self.project = replace(self.project, state=ProjectState.COMPLETE)

    def do_Stall(self, step: steps.Stall) -> None:  # noqa: N802
        self.project = replace(self.project, state=ProjectState.STALLED, state_reason=step.reason)


def drive(world: World, limit: int = 20_000) -> None:
    """Pass after pass, with somebody acting in between, until the project is complete."""
    for _ in range(limit):
        view = world.view()
        step = next_step(view)
        assert step == next_step(view), "the same state asks for the same step"
        if world.project.state == ProjectState.COMPLETE and isinstance(step, steps.Wait):
            return
        world.apply(step)
        if isinstance(step, IDLE_STEPS):
            behind = background_step(world.view())
            if behind is not None and world.chance.random() < 0.5:
                world.apply(behind)
            world.somebody_acts()
        elif world.chance.random() < 0.1:
            world.somebody_acts()
    raise AssertionError(f"not complete after {limit} passes; the last steps were {world.log[-8:]}")


POLICIES = st.builds(
    Policy,
    sizing=st.sampled_from(
        [RoundSizes(cases=(1, 2, 3)), GeometricSizes(first=2, factor=1.5), MinutesBudget(minutes_per_round=20.0)]
    ),
    ordering=st.sampled_from(OrderingName),
    candidate_pool=st.sampled_from([0, 1, 3]),
    held_out=st.builds(
        HeldOutPolicy,
        number=st.integers(0, 6),
        schedule=st.sampled_from(HeldOutSchedule),
    ),
    training=st.builds(TrainingPolicy, recipe=st.just("paper"), seed=st.integers(0, 99)),
)
