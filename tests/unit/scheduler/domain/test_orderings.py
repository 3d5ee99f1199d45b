"""Orderings: who comes first."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rekindle_scheduler.domain.candidates import candidates, rank
from rekindle_scheduler.domain.enums import CaseMark
from rekindle_scheduler.domain.orderings import ORDERINGS, OrderingName
from rekindle_scheduler.domain.policy import Policy, TrainingPolicy


def rank_cases(cases, name: OrderingName, seed: int):
    """These very cases in their order."""
    by_id = {case.case_id: case for case in cases}
    ranked = rank(candidates(Policy(ordering=name, training=TrainingPolicy(seed=seed)), by_id.values()))
    return [by_id[each.case_id] for each in ranked]


def ids(cases) -> list[int]:
    return [case.sequence for case in cases]


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        (OrderingName.EASY_FIRST, [3, 1, 2, 4, 5]),
        (OrderingName.HARD_FIRST, [2, 4, 1, 3, 5]),
        (OrderingName.UNCERTAINTY, [4, 2, 1, 3, 5]),
        (OrderingName.FIRST_COME, [1, 2, 3, 4, 5]),
    ],
)
def test_orderings(make: SimpleNamespace, name: OrderingName, expected: list[int]):
    """Minutes or confidence decide, ties go by registration, unknown cases come last."""
    cases = [
        make.case(5, None),
        make.case(4, coarse_label=make.coarse(9.0, (0.9, None))),
        make.case(3, coarse_label=make.coarse(1.0, (0.95, 0.9))),
        make.case(2, coarse_label=make.coarse(9.0, (0.6, 0.7))),
        make.case(1, coarse_label=make.coarse(5.0, (0.8, 0.8))),
    ]
    assert expected == ids(rank_cases(cases, name, seed=1))


@pytest.mark.parametrize("name", list(OrderingName))
def test_marks_outweigh_the_ordering(make: SimpleNamespace, name: OrderingName):
    """Marked easy comes first and marked hard last, whatever the model thinks."""
    cases = [make.case(i, float(i)) for i in range(1, 8)]
    cases[3] = make.case(4, 4.0, mark=CaseMark.EASY)
    cases[0] = make.case(1, 1.0, mark=CaseMark.HARD)
    ranked = ids(rank_cases(cases, name, seed=3))
    assert (4, 1) == (ranked[0], ranked[-1])


def test_random_depends_on_seed_and_images_alone(make: SimpleNamespace):
    """Ids that a run makes up, and the order of registration, do not change a random order."""
    first = [make.case(i) for i in range(1, 30)]
    again = [make.case(i, case_id=f"other{i}", volume_id="x") for i in range(1, 30)]
    one = [c.image_digest for c in rank_cases(first, OrderingName.RANDOM, seed=7)]
    assert one == [c.image_digest for c in rank_cases(reversed(again), OrderingName.RANDOM, seed=7)]
    assert one != [c.image_digest for c in rank_cases(first, OrderingName.RANDOM, seed=8)]
    assert one != [c.image_digest for c in first]


def test_every_ordering_of_the_api_exists():
    """The registry holds each name that a policy may carry."""
    assert set(OrderingName) == set(ORDERINGS)


@given(st.lists(st.floats(0.1, 100), min_size=1, max_size=30), st.sampled_from(OrderingName), st.randoms())
def test_ranking_is_a_permutation_free_of_input_order(make: SimpleNamespace, minutes, name, shuffle):
    """No case is lost or doubled, and the order in which rows arrive does not matter."""
    cases = [make.case(i, m) for i, m in enumerate(minutes, start=1)]
    ranked = ids(rank_cases(cases, name, seed=0))
    shuffled = list(cases)
    shuffle.shuffle(shuffled)
    assert list(range(1, len(cases) + 1)) == sorted(ranked)
    assert ranked == ids(rank_cases(shuffled, name, seed=0))
