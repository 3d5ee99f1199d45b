"""The training loop, one for both networks: phases, steps, loss, optimiser, checkpoint."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import torch
from torch import nn

from rekindle_trainer.domain.presets import Phase, Preset
from rekindle_trainer.process.networks.igniter import Igniter
from rekindle_trainer.process.training.batches import Assembly, Batch
from rekindle_trainer.process.training.checkpoint import (
    Checkpoints,
    Progress,
    read_for_all,
    restore_network,
    restore_optimizer,
)
from rekindle_trainer.process.training.data import TrainingCase
from rekindle_trainer.process.training.distributed import ALONE, Ranks
from rekindle_trainer.process.training.losses import (
    batch_dice,
    class_means,
    distillation_loss,
    igniter_loss,
    sustainer_loss,
)
from rekindle_trainer.process.training.optim import build_optimizer, learning_rate
from rekindle_trainer.process.training.sampling import Sampler, stream_seed
from rekindle_trainer.process.training.shared import Share, share_network

DISTILLATION_WEIGHT = 0.5


class RunStopped(Exception):
    """Someone asked the run to stop; its newest checkpoint is written."""


class Diverged(Exception):
    """The loss is not finite any more."""


class Report(Protocol):
    """Where a running loop says how far it is."""

    def __call__(
        self,
        *,
        phase: str,
        step: int,
        steps: int,
        epoch: int,
        epochs: int,
        loss: float,
        dice: float | None,
        lr: float,
        eta_seconds: float,
    ) -> None: ...


@dataclass(frozen=True)
class Job:
    """What to train on what, and how."""

    network: nn.Module
    phases: tuple[Phase, ...]
    cases: Sequence[TrainingCase]
    #: The target's modality: seed cases of others take part only where a phase says so.
    modality: str
    preset: Preset
    channels: int
    seed: int
    device: torch.device
    #: The processes that train it together.
    ranks: Ranks = ALONE


@dataclass(frozen=True)
class Stream:
    """Cases of one group (igniter: one modality; sustainer: all) and the sampler that draws from them."""

    cases: Sequence[TrainingCase]
    sampler: Sampler


def phase_streams(job: Job, phase: Phase) -> dict[str, Stream]:
    """Streams by modality for the igniter, one stream for the sustainer; ValueError where one is empty."""
    cases = [c for c in job.cases if phase.all_modalities or c.modality == job.modality]
    if not isinstance(job.network, Igniter):
        return {job.modality: Stream(cases, Sampler(cases, phase, job.seed))}
    streams = {}
    for modality in sorted({case.modality for case in cases}):
        own = [case for case in cases if case.modality == modality]
        streams[modality] = Stream(own, Sampler(own, phase, job.seed, group=modality))
    return streams


def phase_steps(phase: Phase, streams: dict[str, Stream]) -> tuple[int, int]:
    """(steps of the phase, steps per epoch); an epoch goes through the longest stream once."""
    per_epoch = max(stream.sampler.steps_per_epoch for stream in streams.values())
    return phase.steps if phase.steps is not None else (phase.epochs or 1) * per_epoch, per_epoch


class Outcome(NamedTuple):
    """What a batch says: the loss to follow, and the Dice to watch (None where it shows no organ)."""

    loss: torch.Tensor
    dice: float | None


def batch_loss(network: nn.Module, batches: dict[str, Batch], share: Share | None = None) -> Outcome:
    """Sustainer: its loss. Igniter: sum over modalities, and 0.5 distillation where there are two.

    Of the whole batch, where `batches` are a share of it.
    """
    share = share or Share()
    if not isinstance(network, Igniter):
        (own,) = batches.values()
        logits, batch = share.whole(network(own.images).float(), own)
        loss = sustainer_loss(logits, batch.labels, batch.reviewed)
        return Outcome(loss, batch_dice(logits, batch.labels, batch.reviewed))
    total = torch.zeros((), device=next(network.parameters()).device)
    means, scores = [], []
    for modality, own in batches.items():
        logits, batch = share.whole(network(own.images, modality).float(), own)
        total = total + igniter_loss(logits, batch.labels, batch.reviewed)
        means.append(class_means(logits, batch.labels, batch.reviewed))
        scores.append(batch_dice(logits, batch.labels, batch.reviewed))
    for first in range(len(means)):
        for second in range(first + 1, len(means)):
            total = total + DISTILLATION_WEIGHT * distillation_loss(means[first], means[second])
    defined = [score for score in scores if score is not None]
    return Outcome(total, sum(defined) / len(defined) if defined else None)


def train(
    job: Job,
    checkpoints: Checkpoints,
    *,
    report: Report,
    should_stop: Callable[[], bool],
    phase_done: Callable[[Phase], str],
) -> Progress:
    """Train `job.network` in place through all phases, from the newest checkpoint on.

    `phase_done` stores the weights at the end of a phase and returns their digest. Raises RunStopped after a
    checkpoint when `should_stop()` turns true, Diverged when the loss is not finite. On CPU the final weights do
    not depend on where the run was interrupted.

    Several processes (`job.ranks`) call it alike and do what one would do on the whole batches; the first one's
    `checkpoints` count. RankLost where they do not meet any more.
    """
    progress, tensors = read_for_all(checkpoints, job.ranks) or (Progress(), {})
    share = share_network(job.network, job.ranks)
    if tensors:
        restore_network(job.network, tensors)
    plan = [(phase, phase_streams(job, phase)) for phase in job.phases]
    steps_of = [phase_steps(phase, streams) for phase, streams in plan]
    total_steps = sum(steps for steps, _ in steps_of)
    for number in range(progress.phase, len(plan)):
        phase, streams = plan[number]
        optimizer = build_optimizer(job.network, phase)
        share.total = phase.batch
        if progress.phase_step:
            restore_optimizer(optimizer, tensors)
        _train_phase(
            job, phase, streams, optimizer, progress, checkpoints, share,
            total_steps=total_steps, report=report, should_stop=should_stop,
        )  # fmt: skip
        progress.phase_weights[phase.name] = phase_done(phase)
        progress.phase, progress.phase_step = number + 1, 0
        if job.ranks.is_first:
            checkpoints.save(job.network, None, progress)
    return progress


def _train_phase(
    job: Job,
    phase: Phase,
    streams: dict[str, Stream],
    optimizer: torch.optim.Optimizer,
    progress: Progress,
    checkpoints: Checkpoints,
    share: Share,
    *,
    total_steps: int,
    report: Report,
    should_stop: Callable[[], bool],
) -> None:
    steps, per_epoch = phase_steps(phase, streams)
    epochs = math.ceil(steps / per_epoch)
    assembly = Assembly(job.channels, phase.augmentation, job.seed, phase.name, job.device, job.preset.channels_last)
    job.network.train()
    started, first, saved = time.monotonic(), progress.step, time.monotonic()
    before = progress.train_seconds
    while progress.phase_step < steps:
        if job.ranks.any(should_stop()):
            if job.ranks.is_first:
                checkpoints.save(job.network, optimizer, progress)
            job.ranks.meet()
            raise RunStopped
        step = progress.phase_step
        rate = learning_rate(phase, step, steps)
        for group in optimizer.param_groups:
            group["lr"] = rate
        # Dropout is a function of the step too, so that no generator's state needs saving.
        torch.manual_seed(stream_seed(job.seed, phase.name, "dropout", step)[0])
        batches = {
            name: assembly.batch(stream.cases, stream.sampler.draw(step)[share.own], step)
            for name, stream in streams.items()
        }
        loss, dice = _step(job, phase, optimizer, batches, share)
        progress.phase_step, progress.step, progress.last_loss = step + 1, progress.step + 1, loss
        progress.epochs = math.ceil(progress.phase_step / per_epoch)
        elapsed = time.monotonic() - started
        progress.train_seconds = before + elapsed
        seconds_per_step = elapsed / (progress.step - first)
        report(
            phase=phase.name, step=progress.step, steps=total_steps, epoch=progress.epochs, epochs=epochs,
            loss=loss, dice=dice, lr=rate,
            eta_seconds=seconds_per_step * (total_steps - progress.step),
        )  # fmt: skip
        due = job.ranks.is_first and _is_due(job.preset, progress.step, time.monotonic() - saved)
        if due and progress.phase_step < steps:
            checkpoints.save(job.network, optimizer, progress)
            saved = time.monotonic()


def _step(
    job: Job, phase: Phase, optimizer: torch.optim.Optimizer, batches: dict[str, Batch], share: Share
) -> tuple[float, float | None]:
    with torch.autocast(job.device.type, dtype=torch.bfloat16, enabled=phase.bf16):
        loss, dice = batch_loss(job.network, batches, share)
    value = float(loss.detach())
    if not math.isfinite(value):
        raise Diverged(f"the loss is {value} in phase {phase.name!r}")
    optimizer.zero_grad(set_to_none=True)
    loss.backward()
    job.ranks.sum_gradients(job.network)
    if phase.clip_norm is not None:
        nn.utils.clip_grad_norm_(job.network.parameters(), phase.clip_norm)
    optimizer.step()
    return value, dice


def _is_due(preset: Preset, step: int, seconds: float) -> bool:
    by_step = preset.checkpoint_every_steps and step % preset.checkpoint_every_steps == 0
    return bool(by_step) or seconds >= preset.checkpoint_every_seconds
