"""Held-out cases: by patient, by seed, for good."""

from __future__ import annotations

import hashlib
from collections import Counter
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rekindle_scheduler.domain.candidates import candidates, in_labelling_order
from rekindle_scheduler.domain.held_out import held_out_at_close, held_out_at_registration
from rekindle_scheduler.domain.policy import HeldOutPolicy, Policy, TrainingPolicy
from rekindle_scheduler.domain.random_draws import draw


def fraction(value: float, seed: int = 0) -> Policy:
    return Policy(held_out=HeldOutPolicy(fraction=value), training=TrainingPolicy(seed=seed))


def number(value: int, seed: int = 0) -> Policy:
    return Policy(held_out=HeldOutPolicy(number=value), training=TrainingPolicy(seed=seed))


def test_draw_is_the_documented_hash():
    """A draw is the first 53 bits of SHA-256 over seed, purpose and name."""
    bits = int(hashlib.sha256(b"7:held-out:group:p1").hexdigest()[:16], 16) >> 11
    assert bits / 2**53 == draw(7, "held-out", "group:p1")


@given(st.text(min_size=1), st.text(), st.text(), st.integers(0, 1000))
def test_cases_of_one_patient_share_the_side(key: str, one: str, other: str, seed: int):
    """With a group key the image does not matter."""
    policy = fraction(0.5, seed)
    assert held_out_at_registration(policy, key, one) == held_out_at_registration(policy, key, other)


def test_fraction_is_about_kept(make: SimpleNamespace):
    """Of 4,000 patients about a tenth is held out (five standard deviations: 95)."""
    drawn = sum(held_out_at_registration(fraction(0.1), f"p{i}", make.sha(f"{i}")) for i in range(4000))
    assert 305 <= drawn <= 495


@pytest.mark.parametrize(("share", "expected"), [(0.0, False)])
def test_no_fraction_holds_nothing_out(share: float, expected: bool):
    """A fraction of zero means none."""
    assert expected == any(held_out_at_registration(fraction(share), f"p{i}", "d") for i in range(200))


def test_number_waits_for_the_close(make: SimpleNamespace):
    """With a number nobody is held out at registration, and exactly the number at the close."""
    policy = number(3)
    cases = [make.case(i) for i in range(1, 15)]
    assert not any(held_out_at_registration(policy, c.group_key, c.image_digest) for c in cases)
    assert 3 == len(held_out_at_close(policy, cases))


def test_close_draws_whole_groups_by_their_hash(make: SimpleNamespace):
    """Groups come in the order of their draw and are passed over when they no longer fit."""
    cases = [make.case(i, group_key=f"p{(i - 1) // 2}") for i in range(1, 13)]
    order = sorted(
        (f"p{i}" for i in range(6)), key=lambda key: hashlib.sha256(f"5:held-out:group:{key}".encode()).digest()
    )
    drawn = held_out_at_close(number(5, seed=5), cases)
    assert {c.case_id for c in cases if c.group_key in order[:2]} == drawn


def test_close_does_not_depend_on_ids_or_order(make: SimpleNamespace):
    """The same images give the same held-out set in another project."""
    first = [make.case(i) for i in range(1, 20)]
    again = [make.case(i, case_id=f"x{i}") for i in range(19, 0, -1)]
    drawn = {c.image_digest for c in first if c.case_id in held_out_at_close(number(4), first)}
    assert drawn == {c.image_digest for c in again if c.case_id in held_out_at_close(number(4), again)}


def test_close_passes_over_patients_with_a_label(make: SimpleNamespace):
    """What may have been trained on is never drawn, nor another case of that patient."""
    cases = [make.case(i, group_key=f"p{i % 4}", submission_id="s" if i == 1 else None) for i in range(1, 13)]
    drawn = held_out_at_close(number(9), cases)
    assert {c.case_id for c in cases if c.group_key != "p1"} == drawn


@given(st.lists(st.integers(0, 6), min_size=1, max_size=25), st.integers(0, 30), st.integers(0, 9))
def test_close_keeps_groups_whole_and_leaves_something(make: SimpleNamespace, groups, wanted, seed):
    """Never more than the number, never half a patient, never all patients."""
    cases = [make.case(i, group_key=f"p{g}") for i, g in enumerate(groups, start=1)]
    drawn = held_out_at_close(number(wanted, seed), cases)
    inside = Counter(c.group_key for c in cases if c.case_id in drawn)
    whole = Counter(c.group_key for c in cases)
    assert len(drawn) <= wanted
    assert all(whole[key] == count for key, count in inside.items())
    assert set(inside) != set(whole)


def test_labelling_order_ignores_easiness(make: SimpleNamespace):
    """Held-out cases come by their draw: other minutes, same order."""
    easy = [make.case(i, float(i), held_out=True) for i in range(1, 9)]
    hard = [make.case(i, 100.0 - i, held_out=True) for i in range(1, 9)]
    first = [c.sequence for c in in_labelling_order(candidates(number(8), easy))]
    assert first == [c.sequence for c in in_labelling_order(candidates(number(8), hard))]
    assert first == sorted(
        first, key=lambda i: hashlib.sha256(f"0:held-out:image:{make.sha(f'image{i}')}".encode()).digest()
    )
