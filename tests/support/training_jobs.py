"""Small training jobs over volumes in memory, and a program that does them as one of several processes.

argv: folder. Run by torchrun; the first process leaves the weights of every job and what a batch norm computed there.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import numpy as np
import safetensors.torch
import torch
from rekindle_servicekit.objects import MemoryObjects, Objects
from rekindle_trainer.domain.presets import TINY, Phase, Preset
from rekindle_trainer.process.networks.igniter import Igniter
from rekindle_trainer.process.networks.transunet import TransUNet
from rekindle_trainer.process.training.checkpoint import Checkpoints, pack_weights
from rekindle_trainer.process.training.data import TrainingCase
from rekindle_trainer.process.training.distributed import ALONE, Ranks, TorchRanks, leave
from rekindle_trainer.process.training.loop import Job, RunStopped, train
from rekindle_trainer.process.training.shared import share_network
from torch import nn


def case(number: int, source: str, modality: str) -> TrainingCase:
    rng = np.random.default_rng(number)
    labels = np.zeros((4, 64, 64), np.uint8)
    labels[1:3, 10:30, 10:30] = 1
    images = (rng.standard_normal((4, 64, 64)) + labels).astype(np.float16)
    return TrainingCase(f"{number:064x}", source, modality, images, labels, np.array([True, True]))


CASES = [case(1, "seed", "CT"), case(2, "seed", "MR"), case(3, "target", "CT")]


def igniter_job(preset: Preset = TINY, *, bf16: bool = False, batch: int = 2, ranks: Ranks = ALONE) -> Job:
    """CT and MR, with dropout, so that norms, both losses and distillation take part."""
    phases = tuple(replace(phase, steps=4, batch=batch, bf16=bf16) for phase in preset.igniter_phases)
    network = Igniter(replace(preset.igniter, dropout=0.2), 2, ("CT", "MR"))
    return job(network, phases, preset, 3, ranks)


def sustainer_job(
    preset: Preset = TINY, *, bf16: bool = False, batch: int = 2, recipe: str = "default", ranks: Ranks = ALONE
) -> Job:
    """Both phases of the recipe, with dropout."""
    phases = tuple(replace(phase, steps=2, epochs=None, batch=batch, bf16=bf16) for phase in preset.recipes[recipe])
    return job(TransUNet(replace(preset.transunet, dropout=0.2), 2), phases, preset, 1, ranks)


def job(network: nn.Module, phases: tuple[Phase, ...], preset: Preset, channels: int, ranks: Ranks) -> Job:
    if preset.channels_last:
        network.to(memory_format=torch.channels_last)
    return Job(network, phases, CASES, "CT", preset, channels, 3, torch.device("cpu"), ranks)


def run(job: Job, objects: Objects, *, attempt: int = 1, steps: int = 99) -> bytes:
    """Weights after at most `steps` steps of this attempt."""
    calls = iter(range(1000))
    with suppress(RunStopped):
        train(
            job,
            Checkpoints(objects, "r", attempt),
            report=lambda **_: None,
            should_stop=lambda: next(calls) >= steps,
            phase_done=lambda _phase: "digest",
        )
    return pack_weights(job.network, {})


def partial_job(preset: Preset = TINY, *, batch: int = 2, ranks: Ranks = ALONE) -> Job:
    """A sustainer one of whose cases has an organ that nobody reviewed."""
    whole = sustainer_job(preset, batch=batch, ranks=ranks)
    unknown = replace(CASES[2], reviewed=np.array([True, False]))
    return replace(whole, cases=[*CASES[:2], unknown])


def by_sgd(job: Job) -> Job:
    """With an update that is linear in the gradients: Adam's makes full steps of what is rounding alone."""
    return replace(job, phases=tuple(replace(p, optimizer="sgd", learning_rate=0.01) for p in job.phases))


#: By name: jobs whose weights several processes must reach like one. Batches that split evenly and not.
JOBS: dict[str, Callable[[Ranks], Job]] = {
    "igniter-odd": lambda ranks: by_sgd(igniter_job(replace(TINY, channels_last=True), batch=3, ranks=ranks)),
    "igniter-adam": lambda ranks: igniter_job(batch=4, ranks=ranks),
    "sustainer-odd": lambda ranks: by_sgd(sustainer_job(batch=3, recipe="paper", ranks=ranks)),
    "sustainer-unreviewed": lambda ranks: by_sgd(partial_job(batch=4, ranks=ranks)),
}


def weights_of(name: str, ranks: Ranks = ALONE) -> bytes:
    """Weights after all steps of a job, from fixed starting weights."""
    torch.manual_seed(0)
    return run(JOBS[name](ranks), MemoryObjects())


def normalised(ranks: Ranks, *, dtype: torch.dtype) -> dict[str, torch.Tensor]:
    """What a batch norm makes of 5 samples, of which each process has its part: outputs, gradients, statistics."""
    generator = torch.Generator().manual_seed(1)
    whole = torch.randn(5, 3, 4, 6, generator=generator, dtype=torch.float64).to(dtype) * 3 + 7
    target = torch.randn(5, 3, 4, 6, generator=generator, dtype=torch.float64).to(dtype)
    norm = nn.BatchNorm2d(3, eps=1e-3, dtype=dtype)
    with torch.no_grad():
        norm.weight.copy_(torch.tensor([0.5, 1.0, 2.0]))
    share = share_network(nn.Sequential(norm), ranks)
    share.total = len(whole)
    images = whole[share.own].clone().requires_grad_()
    made = norm(images)
    (made * target[share.own]).tanh().sum().backward()
    ranks.sum_gradients(norm)
    assert images.grad is not None
    assert norm.weight.grad is not None
    assert norm.bias.grad is not None
    return {
        "made": share.join(made.detach()),
        "images": share.join(images.grad),
        "weight": norm.weight.grad,
        "bias": norm.bias.grad,
        **{name: value for name, value in norm.state_dict().items() if "running" in name},
    }


def main(folder: Path) -> None:
    torch.set_num_threads(1)
    ranks = TorchRanks(torch.device("cpu"), 120)
    for name in JOBS:
        data = weights_of(name, ranks)
        if ranks.is_first:
            (folder / f"{name}.safetensors").write_bytes(data)
    norms = normalised(ranks, dtype=torch.float64)
    if ranks.is_first:
        (folder / "norm.safetensors").write_bytes(safetensors.torch.save(norms))
    ranks.close()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
    leave(0)
