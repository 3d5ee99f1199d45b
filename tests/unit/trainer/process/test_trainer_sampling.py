"""Which slices a step draws, and how they are changed."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from rekindle_trainer.domain.presets import PRESETS, TINY, Phase
from rekindle_trainer.process.training.augment import augment
from rekindle_trainer.process.training.batches import Assembly
from rekindle_trainer.process.training.data import TrainingCase
from rekindle_trainer.process.training.sampling import Sampler, SliceRef

PHASE = replace(TINY.recipes["default"][1], batch=8, seed_share=0.25, foreground_share=0.75)
IN_TURN = replace(PHASE, seed_share=0.0, foreground_share=None, batch=4)


def case(name: str, source: str, *, depth: int = 10, organ: slice = slice(4, 6)) -> TrainingCase:
    rng = np.random.default_rng(int(name, 16))
    labels = np.zeros((depth, 16, 16), np.uint8)
    labels[organ, 4:9, 4:9] = 1
    images = rng.standard_normal((depth, 16, 16)).astype(np.float16)
    return TrainingCase(name, source, "CT", images, labels, np.array([True, True, False]))


CASES = [case("aa", "seed"), case("bb", "target"), case("cc", "target")]


def test_a_step_draws_the_same_whatever_was_drawn_before() -> None:
    """A fresh sampler at step 17 equals one that went through all steps before."""
    walked = Sampler(CASES, PHASE, 5)
    for step in range(17):
        walked.draw(step)
    assert Sampler(CASES, PHASE, 5).draw(17) == walked.draw(17)


def test_steps_and_seeds_draw_differently() -> None:
    """Neither repeats the other."""
    draws = [tuple(Sampler(CASES, PHASE, seed).draw(step)) for seed in (1, 2) for step in (0, 1)]
    assert 4 == len(set(draws))


def test_shares_hold_over_many_steps() -> None:
    """A quarter of the draws are seed slices and three quarters show an organ, though few slices do."""
    sampler = Sampler(CASES, replace(PHASE, batch=7), 0)
    refs = [ref for step in range(400) for ref in sampler.draw(step)]
    assert 2800 == len(refs)
    seed = np.mean([CASES[ref.case].source == "seed" for ref in refs])
    organ = np.mean([CASES[ref.case].labels[ref.index].any() for ref in refs])
    assert pytest.approx(0.25, abs=0.03) == seed
    assert pytest.approx(0.75, abs=0.03) == organ


def test_an_epoch_goes_through_every_slice_once() -> None:
    """Without a foreground share 20 target slices come in 5 steps of 4, and in another order next time."""
    sampler = Sampler(CASES, IN_TURN, 0)
    epochs = [[ref for step in range(first, first + 5) for ref in sampler.draw(step)] for first in (0, 5)]
    everything = {SliceRef(number, index) for number in (1, 2) for index in range(10)}
    assert 5 == sampler.steps_per_epoch
    assert [everything, everything] == [set(epoch) for epoch in epochs]
    assert epochs[0] != epochs[1]


def test_a_phase_without_slices_is_an_error() -> None:
    """Target cases alone cannot feed a phase of seed slices."""
    with pytest.raises(ValueError, match="no slices"):
        Sampler(CASES[1:], replace(PHASE, seed_share=1.0), 0)


@pytest.mark.parametrize("name", ["mild", "paper"])
def test_augmentation_depends_on_the_seed_alone(name: str) -> None:
    """The same seed after other calls gives the same bits; another seed gives others."""
    image, label = torch.randn(1, 32, 32), torch.zeros(1, 32, 32)
    first = augment(name, image.clone(), label.clone(), 11)[0]
    others = [augment(name, image.clone(), label.clone(), seed)[0] for seed in range(20, 28)]
    assert torch.equal(first, augment(name, image.clone(), label.clone(), 11)[0])
    assert any(not torch.equal(first, other) for other in others)


@pytest.mark.parametrize("name", ["mild", "paper"])
def test_image_and_label_move_together(name: str) -> None:
    """A bright square stays under its label, and the label keeps whole values."""
    label = torch.zeros(1, 64, 64)
    label[0, 20:44, 12:40] = 2.0
    for seed in range(12):
        image, moved = augment(name, label.clone() * 3, label.clone(), seed)
        assert {0.0, 2.0} == set(moved.unique().tolist())
        bright, marked = image[0] > 3.0, moved[0] > 0
        overlap = 2 * (bright & marked).sum() / (bright.sum() + marked.sum())
        assert overlap > 0.93


def test_a_slice_is_changed_alike_at_any_place_of_a_batch() -> None:
    """Noise belongs to (seed, image, slice, step), not to the order of calls."""
    assembly = Assembly(3, "mild", 5, "corrected", torch.device("cpu"))
    refs = [SliceRef(0, 3), SliceRef(1, 4), SliceRef(2, 9)]
    forward, backward = assembly.batch(CASES, refs, 8), assembly.batch(CASES, refs[::-1], 8)
    assert torch.equal(forward.images, backward.images.flip(0))
    assert torch.equal(forward.labels, backward.labels.flip(0))
    assert not torch.equal(forward.images, assembly.batch(CASES, refs, 9).images)


def test_batches_carry_neighbours_labels_and_review_states() -> None:
    """Channels are the slices before, at and after the index; labels are the middle one's."""
    batch = Assembly(3, "none", 5, "corrected", torch.device("cpu")).batch(CASES, [SliceRef(1, 4)], 0)
    np.testing.assert_array_equal(CASES[1].images[3:6].astype(np.float32), batch.images[0].numpy())
    np.testing.assert_array_equal(CASES[1].labels[4], batch.labels[0].numpy())
    assert [[True, True, False]] == batch.reviewed.tolist()


def test_phases_say_how_long_they_are() -> None:
    """Every phase of every preset has either steps or epochs."""
    phases: list[Phase] = []
    for preset in PRESETS.values():
        phases += [*preset.igniter_phases, *(phase for recipe in preset.recipes.values() for phase in recipe)]
    assert all((phase.steps is None) != (phase.epochs is None) for phase in phases)
