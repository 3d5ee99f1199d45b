"""Training: steps per second of both networks, in the preset's number format and memory layout and in others."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from rekindle_trainer.domain.presets import PRESETS, Phase
from rekindle_trainer.process.export import in_layout
from rekindle_trainer.process.networks.igniter import Igniter
from rekindle_trainer.process.networks.transunet import TransUNet
from rekindle_trainer.process.training.batches import Batch
from rekindle_trainer.process.training.loop import batch_loss
from rekindle_trainer.process.training.optim import build_optimizer
from torch import nn

from bench.measure import Figure, Options, Row, alternate, environment, in_child

CLASSES = 3
PRESET = PRESETS["cpu"]


@dataclass(frozen=True, kw_only=True)
class Setting:
    """How the numbers of a step are kept."""

    bf16: bool
    channels_last: bool

    def __str__(self) -> str:
        layout = "channels last" if self.channels_last else "contiguous"
        return f"{'bf16' if self.bf16 else 'fp32'}, {layout}"


#: Default settings of torch.
PLAIN = Setting(bf16=False, channels_last=False)
SETTINGS = [PLAIN, *(Setting(bf16=b, channels_last=c) for b, c in ((False, True), (True, False), (True, True)))]


def measure(options: Options) -> list[Row]:
    repeats = 1 if options.quick else 5
    # As the trainer starts its processes: threads that wait take no processor from others.
    with environment(OMP_WAIT_POLICY="PASSIVE"):
        return [
            *in_child(_compare, "igniter", PRESET.igniter_phases[0], repeats),
            *in_child(_compare, "TransUNet", PRESET.recipes["default"][-1], repeats),
        ]


def _compare(name: str, phase: Phase, repeats: int) -> list[Row]:
    """Every setting beside torch's own; repeats take turns."""
    # As training does.
    torch.use_deterministic_algorithms(True)
    torch.utils.deterministic.fill_uninitialized_memory = False  # pyright: ignore[reportAttributeAccessIssue]
    steppers = [Stepper(name, phase, setting) for setting in SETTINGS]
    plain, *others = alternate(repeats, *(stepper.step for stepper in steppers))
    used = Setting(bf16=phase.bf16, channels_last=PRESET.channels_last)
    return [
        Row(
            what=f"{name} {PRESET.name}, batch {steppers[0].images}, {setting}" + ("*" if setting == used else ""),
            unit="steps/s", more_is_better=True, rekindle=Figure.rate(1, seconds),
            instead=str(PLAIN), other=Figure.rate(1, plain),
        )
        for setting, seconds in zip(SETTINGS[1:], others, strict=True)
    ]  # fmt: skip


class Stepper:
    """A network, an optimiser and a batch: forward, loss, backward, update."""

    def __init__(self, name: str, phase: Phase, setting: Setting) -> None:
        torch.manual_seed(0)
        self._setting = setting
        self._layout = torch.channels_last if setting.channels_last else torch.contiguous_format
        network = Igniter(PRESET.igniter, CLASSES, ("CT", "MR")) if name == "igniter" else _transunet()
        self._network: nn.Module = in_layout(network, self._layout).train()
        self._clip_norm = phase.clip_norm
        self._optimizer = build_optimizer(self._network, phase)
        modalities = ("CT", "MR") if name == "igniter" else ("CT",)
        channels = PRESET.igniter.in_channels if name == "igniter" else PRESET.transunet.in_channels
        self._batches = {modality: self._batch(phase.batch, channels) for modality in modalities}
        #: Slices in one step, over all modalities.
        self.images = phase.batch * len(modalities)

    def step(self) -> None:
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=self._setting.bf16):
            loss = batch_loss(self._network, self._batches).loss
        self._optimizer.zero_grad(set_to_none=True)
        loss.backward()
        if self._clip_norm is not None:
            nn.utils.clip_grad_norm_(self._network.parameters(), self._clip_norm)
        self._optimizer.step()

    def _batch(self, count: int, channels: int) -> Batch:
        rows, columns = PRESET.transunet.size
        return Batch(
            torch.randn(count, channels, rows, columns).contiguous(memory_format=self._layout),
            torch.randint(CLASSES, (count, rows, columns)),
            torch.ones(count, CLASSES, dtype=torch.bool),
        )


def _transunet() -> TransUNet:
    return TransUNet(PRESET.transunet, CLASSES)
