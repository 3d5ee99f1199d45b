"""The loop: schedules, decay, and resuming to the same weights."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from rekindle_servicekit.objects import MemoryObjects
from rekindle_trainer.domain.presets import PAPER, TINY
from rekindle_trainer.process.networks.igniter import Igniter
from rekindle_trainer.process.training.batches import Batch
from rekindle_trainer.process.training.checkpoint import Checkpoints, pack_weights, unpack_weights
from rekindle_trainer.process.training.data import TrainingCase
from rekindle_trainer.process.training.loop import Diverged, Job, batch_loss
from rekindle_trainer.process.training.losses import class_means, distillation_loss, igniter_loss
from rekindle_trainer.process.training.optim import build_optimizer, learning_rate
from torch import nn
from training_jobs import CASES, igniter_job, run, sustainer_job


@pytest.mark.parametrize("make", [igniter_job, sustainer_job])
@pytest.mark.parametrize("fast", [False, True])
@pytest.mark.parametrize("steps", [1, 2, 3])
def test_a_run_that_was_interrupted_ends_in_the_same_weights(make: object, fast: bool, steps: int) -> None:
    """After one to three steps, within a phase and between phases, with and without bf16 channels-last."""
    assert callable(make)
    preset = replace(TINY, channels_last=fast, checkpoint_every_steps=1)
    torch.manual_seed(0)
    whole = run(make(preset, bf16=fast), MemoryObjects())
    objects = MemoryObjects()
    torch.manual_seed(0)
    part = run(make(preset, bf16=fast), objects, steps=steps)
    torch.manual_seed(99)  # another process has other random numbers
    resumed = run(make(preset, bf16=fast), objects, attempt=2)
    assert part != whole
    assert whole == resumed


def test_a_damaged_checkpoint_is_passed_over() -> None:
    """The one before it is used, and a state without weights does not count."""
    objects = MemoryObjects()
    preset = replace(TINY, checkpoint_every_steps=1)
    torch.manual_seed(0)
    whole = run(igniter_job(preset), MemoryObjects())
    torch.manual_seed(0)
    run(igniter_job(preset), objects, steps=3)
    newest = max(objects.list("runs/r/1/checkpoint/")).rpartition("/")[0]
    damaged = objects.get(f"{newest}/weights.safetensors")[:-1] + b"\x7f"
    objects.delete(f"{newest}/weights.safetensors")
    objects.put(f"{newest}/weights.safetensors", damaged)
    found = Checkpoints(objects, "r", 2).newest()
    assert found is not None
    assert 2 == found[0].step
    assert whole == run(igniter_job(preset), objects, attempt=2)


def test_only_the_newest_checkpoints_are_kept() -> None:
    """Two remain of each attempt."""
    objects = MemoryObjects()
    run(igniter_job(replace(TINY, checkpoint_every_steps=1)), objects)
    states = [key for key in objects.list("runs/r/") if key.endswith("state.json")]
    assert ["runs/r/1/checkpoint/00000003/state.json", "runs/r/1/checkpoint/00000004/state.json"] == states


def test_checkpoints_hold_no_pickle() -> None:
    """Every object of a checkpoint is JSON or safetensors (which begins with its header's length)."""
    objects = MemoryObjects()
    run(sustainer_job(TINY), objects)
    for key in objects.list("runs/r/1/checkpoint/"):
        data = objects.get(key)
        assert data[:1] == b"{" if key.endswith(".json") else data[8:9] == b"{"
        assert b"\x80\x04" != data[:2]


def test_weights_carry_their_description() -> None:
    """What was packed is unpacked; other bytes are refused."""
    network = nn.Linear(2, 2)
    tensors, description = unpack_weights(pack_weights(network, {"network": "x", "config": {"a": [1]}}))
    assert {"network": "x", "config": {"a": [1]}} == description
    assert torch.equal(network.weight, tensors["weight"])
    with pytest.raises(ValueError, match="not a weights file"):
        unpack_weights(b"PK\x03\x04 something else")


def test_a_loss_that_is_not_finite_stops_the_run() -> None:
    """NaN in the images ends in Diverged, not in weights of NaN."""
    broken = igniter_job(TINY)
    bad = replace_images(CASES[0])
    with pytest.raises(Diverged, match="phase 'seed'"):
        run(Job(broken.network, broken.phases, [bad], "CT", TINY, 3, 3, torch.device("cpu")), MemoryObjects())


def replace_images(case: TrainingCase) -> TrainingCase:
    images = np.full_like(case.images, np.nan)
    return TrainingCase(case.image_digest, case.source, case.modality, images, case.labels, case.reviewed)


def test_the_igniters_loss_sums_modalities_and_half_the_distillation() -> None:
    """CT alone has its own loss only; CT and MR have both and 0.5 x distillation between them."""
    torch.manual_seed(0)
    network = Igniter(TINY.igniter, 2, ("CT", "MR")).eval()
    labels, reviewed = torch.randint(0, 2, (2, 16, 16)), torch.ones(2, 2, dtype=torch.bool)
    batches = {m: Batch(torch.randn(2, 3, 16, 16), labels, reviewed) for m in ("CT", "MR")}
    logits = {m: network(batch.images, m) for m, batch in batches.items()}
    own = {m: igniter_loss(values, labels, reviewed).item() for m, values in logits.items()}
    means = [class_means(values, labels, reviewed) for values in logits.values()]
    both = own["CT"] + own["MR"] + 0.5 * distillation_loss(means[0], means[1]).item()
    assert pytest.approx(own["CT"]) == batch_loss(network, {"CT": batches["CT"]}).loss.item()
    assert pytest.approx(both) == batch_loss(network, batches).loss.item()
    assert both > own["CT"] + own["MR"]


def test_learning_rates_follow_the_papers_schedules() -> None:
    """Igniter: 1e-4 x 0.95^(step / 500); sustainer: 0.01 (1 - t)^0.9."""
    igniter, sustainer = PAPER.igniter_phases[0], PAPER.recipes["paper"][0]
    assert pytest.approx(1e-4 * 0.95**3) == learning_rate(igniter, 1999, 30_000)
    assert pytest.approx(0.01 * 0.5**0.9) == learning_rate(sustainer, 50, 100)


def test_warm_up_rises_linearly_and_cosine_falls_to_nothing() -> None:
    """Half-way through the warm-up the rate is half of what it would be."""
    phase = replace(TINY.igniter_phases[0], learning_rate=1.0, schedule="cosine", warmup_steps=4)
    assert pytest.approx(0.5, abs=1e-3) == learning_rate(phase, 1, 1000)
    assert pytest.approx(0.5) == learning_rate(phase, 500, 1000)
    assert learning_rate(phase, 999, 1000) < 1e-4


def test_adams_decay_is_the_papers_penalty_on_kernels_only() -> None:
    """A step with decay w equals one whose loss has w / 2 times the kernels' sum of squares."""
    phase = replace(PAPER.igniter_phases[0], weight_decay=0.1)
    results = []
    for explicit in (False, True):
        torch.manual_seed(0)
        network = nn.Sequential(nn.Conv2d(1, 2, 3, bias=False), nn.BatchNorm2d(2))
        optimizer = build_optimizer(network, replace(phase, weight_decay=0.0) if explicit else phase)
        loss = network(torch.ones(2, 1, 8, 8) * torch.arange(8.0)).square().mean()
        if explicit:
            loss = loss + 0.1 * network[0].weight.square().sum() / 2
        loss.backward()
        optimizer.step()
        results.append([p.detach() for p in network.parameters()])
    for expected, actual in zip(results[1], results[0], strict=True):
        torch.testing.assert_close(expected, actual, atol=1e-6, rtol=0)
