"""Selection: sizing, ordering and held-out schedule together."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rekindle_scheduler.domain import predictions, selection
from rekindle_scheduler.domain.candidates import candidates
from rekindle_scheduler.domain.enums import CaseState, HeldOutSchedule
from rekindle_scheduler.domain.orderings import OrderingName
from rekindle_scheduler.domain.policy import GeometricSizes, HeldOutPolicy, MinutesBudget, Policy, RoundSizes

FIRST, INTERLEAVED, LAST = HeldOutSchedule.FIRST, HeldOutSchedule.INTERLEAVED, HeldOutSchedule.LAST


FOUR = RoundSizes(cases=(4,))


def policy(sizing=FOUR, schedule=INTERLEAVED, **changes) -> Policy:
    held_out = HeldOutPolicy(number=3, schedule=schedule, share_of_round=0.2)
    return Policy(sizing=sizing, held_out=held_out, **changes)


def target(make: SimpleNamespace, others: int, held_out: int):
    """`others` cases of 1, 2, 3... minutes, then the held-out ones of 2 minutes each."""
    cases = [make.case(i, float(i)) for i in range(1, others + 1)]
    return cases + [make.case(100 + i, 2.0, held_out=True) for i in range(held_out)]


def select_cases(rules: Policy, number: int, cases, **changes):
    """The selected ones of these very cases."""
    chosen = selection.select_cases(rules, number, [*candidates(rules, cases)], **changes)
    by_id = {case.case_id: case for case in cases}
    return tuple(by_id[each.case_id] for each in chosen)


def plan_predictions(rules: Policy, version, cases):
    return [*predictions.plan_predictions(rules, version, [*candidates(rules, cases)])]


def others(cases) -> list[int]:
    return [c.sequence for c in cases if not c.held_out]


def held(cases) -> int:
    return sum(c.held_out for c in cases)


def test_takes_the_easiest(make: SimpleNamespace):
    """A round of four takes the four easiest of those that are ready."""
    cases = target(make, 9, 0)
    cases[0] = make.case(1, 1.0, state=CaseState.LEASED)
    cases[1] = make.case(2, 2.0, state=CaseState.PUT_OFF)
    assert [3, 4, 5, 6] == others(select_cases(policy(), 1, cases))


@pytest.mark.parametrize(
    ("schedule", "available", "others_open", "expected"),
    [
        (FIRST, 9, 0, (4, 5)),
        (INTERLEAVED, 9, 0, (4, 1)),
        (INTERLEAVED, 4, 0, (4, 5)),
        (INTERLEAVED, 4, 1, (4, 1)),
        (INTERLEAVED, 0, 0, (0, 5)),
        (LAST, 9, 0, (4, 0)),
        (LAST, 4, 0, (4, 0)),
        (LAST, 0, 0, (0, 5)),
    ],
)
def test_held_out_schedules(make: SimpleNamespace, schedule, available, others_open, expected):
    """Of five held-out cases: all at first, one beside four, or all when nothing else is left."""
    chosen = select_cases(policy(schedule=schedule), 1, target(make, available, 5), others_open=others_open)
    assert expected == (len(others(chosen)), held(chosen))


@pytest.mark.parametrize(("size", "expected"), [(2, 1), (8, 2), (12, 3), (15, 3), (16, 4)])
def test_interleaved_share(make: SimpleNamespace, size: int, expected: int):
    """At most a fifth of a round is held out (3 of 15 + 3, 4 of 16 + 4), and at least one case."""
    chosen = select_cases(policy(RoundSizes(cases=(size,))), 1, target(make, 40, 9))
    assert (size, expected) == (len(others(chosen)), held(chosen))


def test_hand_out_order(make: SimpleNamespace):
    """First means before all others; interleaved spreads them among the others."""
    cases = target(make, 20, 2)
    first = [c.held_out for c in select_cases(policy(schedule=FIRST), 1, cases)]
    assert [True, True, False, False, False, False] == first
    spread = [c.held_out for c in select_cases(policy(RoundSizes(cases=(8,))), 1, cases)]
    assert [False, False, True, False, False, False, False, True, False, False] == spread


@pytest.mark.parametrize(
    ("minutes", "factor", "expected"),
    [(10.0, 1.0, [1, 2, 3]), (12.1, 1.0, [1, 2, 3, 4]), (1.0, 1.0, [1]), (20.0, 2.0, [1, 2, 3])],
)
def test_minutes_budget(make: SimpleNamespace, minutes: float, factor: float, expected: list[int]):
    """Cases of 1, 2, 3... minutes beside one held-out case of 2: as many as fit, at least one."""
    chosen = select_cases(
        policy(MinutesBudget(minutes_per_round=minutes)), 1, target(make, 9, 9), minutes_factor=factor
    )
    assert expected == others(chosen)
    assert 1 == held(chosen)


def test_minutes_budget_of_held_out_cases(make: SimpleNamespace):
    """A fifth of 30 minutes pays for three held-out cases of 2; the rest for 1 + ... + 6 minutes."""
    chosen = select_cases(policy(MinutesBudget(minutes_per_round=30.0)), 1, target(make, 9, 9))
    assert ([1, 2, 3, 4, 5, 6], 3) == (others(chosen), held(chosen))


@given(
    st.integers(0, 12),
    st.integers(0, 6),
    st.sampled_from(HeldOutSchedule),
    st.sampled_from([RoundSizes(cases=(1, 3)), GeometricSizes(first=2), MinutesBudget(minutes_per_round=7.0)]),
    st.sampled_from(OrderingName),
)
def test_rounds_use_up_every_case(make: SimpleNamespace, n, held_out, schedule, sizing, ordering):
    """Round after round takes each case once, never none while any is left."""
    left = target(make, n, held_out)
    for number in range(1, n + held_out + 1):
        chosen = select_cases(policy(sizing, schedule, ordering=ordering), number, left)
        assert bool(left) == bool(chosen)
        assert len(chosen) == len({c.case_id for c in chosen})
        left = [c for c in left if c not in chosen]
    assert [] == left


def test_last_schedule_ends_with_held_out_alone(make: SimpleNamespace):
    """The last round of schedule `last` holds nothing else."""
    rules, left, rounds = policy(schedule=LAST), target(make, 6, 3), []
    while left:
        chosen = select_cases(rules, len(rounds) + 1, left)
        rounds.append((len(others(chosen)), held(chosen)))
        left = [c for c in left if c not in chosen]
    assert [(4, 0), (2, 0), (0, 3)] == rounds


def test_pool_is_predicted_first(make: SimpleNamespace):
    """The pool is the first of the ordering and the held-out cases that go with them; the rest follows."""
    cases = [*target(make, 8, 4), make.case(50, None), make.case(51, 0.5, state=CaseState.LEASED)]
    tasks = plan_predictions(policy(candidate_pool=4), "v2", cases)
    assert list(range(13)) == [task.rank for task in tasks]
    assert ["case1", "case2", "case3", "case4"] == [t.case_id for t in tasks[:4]]
    assert [True] * 5 + [False] * 8 == [task.in_pool for task in tasks]
    assert [4] == [i for i, t in enumerate(tasks[:5]) if int(t.case_id[4:]) >= 100]
    assert {"v2"} == {task.model_version_id for task in tasks}


@pytest.mark.parametrize(
    ("schedule", "pool", "expected"),
    [(INTERLEAVED, 2, 1), (INTERLEAVED, 8, 2), (INTERLEAVED, 12, 3), (FIRST, 2, 5), (LAST, 8, 0)],
)
def test_held_out_cases_in_the_pool(make: SimpleNamespace, schedule, pool: int, expected: int):
    """As many as a round of the pool's size may hand out: a fifth, all or none."""
    tasks = plan_predictions(policy(schedule=schedule, candidate_pool=pool), "v2", target(make, 20, 5))
    in_pool = [task.case_id for task in tasks if task.in_pool]
    assert (pool, expected) == (len(in_pool) - expected, sum(int(i[4:]) >= 100 for i in in_pool))


def test_no_pool_means_all(make: SimpleNamespace):
    """With a pool of 0 the round waits for every case."""
    tasks = plan_predictions(policy(candidate_pool=0), "v2", target(make, 5, 2))
    assert [True] * 7 == [task.in_pool for task in tasks]
