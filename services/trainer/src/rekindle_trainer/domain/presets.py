"""Presets: every number of a training run, one dataclass per preset; recipes are its named lists of phases."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Final, Literal

from rekindle_imaging import preprocessing_spec
from rekindle_imaging.preprocessing_spec import Preprocessing

Optimizer = Literal["adam", "adamw", "sgd"]
Schedule = Literal["staircase", "poly", "cosine"]


@dataclass(frozen=True, kw_only=True)
class IgniterConfig:
    """Sizes of the igniter; the defaults are the paper's."""

    #: Channels of the first convolution; the trunk grows to 32 times as many.
    base_width: int = 16
    #: Feature maps per class between the pixel shuffle and the last convolution.
    head_features: int = 8
    #: Share of activations that is dropped after each convolution of a residual block.
    dropout: float = 0.25
    #: Adjacent slices, of which the middle one is segmented.
    in_channels: int = 3


@dataclass(frozen=True, kw_only=True)
class TransUNetConfig:
    """Sizes of TransUNet; the defaults are R50-ViT-B/16 at 256 x 256."""

    #: Rows and columns of the image: multiples of 16.
    size: tuple[int, int] = (256, 256)
    #: 1 (repeated to three) or 3 adjacent slices.
    in_channels: int = 1
    #: Channels of the ResNet's first convolution; its stages have 4, 8 and 16 times as many.
    resnet_width: int = 64
    resnet_units: tuple[int, int, int] = (3, 4, 9)
    resnet_groups: int = 32
    hidden: int = 768
    mlp: int = 3072
    layers: int = 12
    heads: int = 12
    dropout: float = 0.1
    #: Channels of the decoder: before it, then of its four blocks.
    decoder: tuple[int, int, int, int, int] = (512, 256, 128, 64, 16)


@dataclass(frozen=True, kw_only=True)
class Phase:
    """One stretch of training with one optimiser."""

    name: str
    optimizer: Optimizer
    learning_rate: float
    #: ``staircase``: x0.95 every 500 steps; ``poly``: (1 - t)^0.9; ``cosine``: half a cosine to zero.
    schedule: Schedule
    #: Length: either steps, or epochs over the slices that the phase draws from.
    steps: int | None = None
    epochs: int | None = None
    #: Steps over which the learning rate rises linearly from nothing.
    warmup_steps: int = 0
    #: Slices per step; for the igniter, per modality.
    batch: int
    #: Coupled L2 for adam (kernels only) and sgd, decoupled for adamw (kernels only).
    weight_decay: float
    #: Share of each batch drawn from the seed set; 1 = nothing else, 0 = corrected labels only.
    seed_share: float = 0.0
    #: Seed cases of other modalities than the target's take part (their slices count as seed slices).
    all_modalities: bool = False
    #: Share of each batch that shows an organ; None = every slice once per epoch, as it comes.
    foreground_share: float | None = None
    augmentation: Literal["none", "mild", "paper"] = "none"
    #: Gradients are scaled down to this norm; None = never.
    clip_norm: float | None = None
    #: Forward pass in bfloat16. Pays on a GPU and on wide layers; the backward pass of narrow convolutions on a
    #: CPU is several times slower with it, so no preset for the CPU uses it.
    bf16: bool = False


@dataclass(frozen=True, kw_only=True)
class Preset:
    """Networks, preprocessing and schedules that belong together."""

    name: str
    igniter: IgniterConfig
    transunet: TransUNetConfig
    #: Of CT; how many channels there are the networks know.
    preprocessing: Preprocessing
    igniter_phases: tuple[Phase, ...]
    #: Phases of the sustainer by recipe. Under ``default`` the phase named ``seed`` is left out where
    #: compatible initial weights are given.
    recipes: dict[str, tuple[Phase, ...]]
    channels_last: bool = False
    checkpoint_every_seconds: float = 60.0
    #: Also after so many steps; 0 = by time only.
    checkpoint_every_steps: int = 0
    #: Training target cases on which a finished sustainer is checked.
    check_cases: int = 8


_PAPER_SUSTAINER = Phase(
    name="corrected", optimizer="sgd", learning_rate=0.01, schedule="poly", epochs=20, batch=12,
    weight_decay=1e-4, augmentation="paper",
)  # fmt: skip

PAPER = Preset(
    name="paper",
    igniter=IgniterConfig(),
    transunet=TransUNetConfig(),
    preprocessing=preprocessing_spec.PAPER,
    igniter_phases=(
        Phase(
            name="seed", optimizer="adam", learning_rate=1e-4, schedule="staircase", steps=30_000, batch=4,
            weight_decay=1e-4, seed_share=1.0, all_modalities=True,
        ),
    ),
    recipes={
        "paper": (_PAPER_SUSTAINER,),
        "default": (
            Phase(
                name="seed", optimizer="sgd", learning_rate=0.01, schedule="poly", epochs=20, batch=12,
                weight_decay=1e-4, seed_share=1.0, augmentation="mild",
            ),
            Phase(
                name="corrected", optimizer="sgd", learning_rate=0.01, schedule="poly", epochs=20, batch=12,
                weight_decay=1e-4, seed_share=0.25, augmentation="mild",
            ),
        ),
    },
    checkpoint_every_seconds=300.0,
)  # fmt: skip

#: As `paper`, with the slices as they are.
NATIVE = replace(PAPER, name="native", preprocessing=preprocessing_spec.NATIVE)

CPU = Preset(
    name="cpu",
    igniter=IgniterConfig(base_width=4, head_features=4, dropout=0.05),
    transunet=TransUNetConfig(
        size=(128, 128), in_channels=3, resnet_width=16, resnet_units=(2, 2, 2), resnet_groups=4, hidden=128,
        mlp=512, layers=4, heads=4, dropout=0.1, decoder=(128, 64, 32, 24, 16),
    ),
    preprocessing=preprocessing_spec.CPU,
    igniter_phases=(
        Phase(
            name="seed", optimizer="adam", learning_rate=1e-3, schedule="cosine", steps=500, warmup_steps=20, batch=8,
            weight_decay=1e-4, seed_share=1.0, all_modalities=True, foreground_share=0.75, augmentation="mild",
        ),
    ),
    recipes={
        "paper": (
            Phase(
                name="corrected", optimizer="sgd", learning_rate=0.01, schedule="poly", epochs=20, batch=12,
                weight_decay=1e-4, augmentation="mild",
            ),
        ),
        "default": (
            Phase(
                name="seed", optimizer="adamw", learning_rate=1e-3, schedule="cosine", steps=500, warmup_steps=20,
                batch=16, weight_decay=1e-2, seed_share=1.0, all_modalities=True, foreground_share=0.75,
                augmentation="mild", clip_norm=1.0,
            ),
            Phase(
                name="corrected", optimizer="adamw", learning_rate=5e-4, schedule="cosine", steps=250,
                warmup_steps=10, batch=16, weight_decay=1e-2, seed_share=0.25, foreground_share=0.75,
                augmentation="mild", clip_norm=1.0,
            ),
        ),
    },
    channels_last=True,
)  # fmt: skip

TINY = Preset(
    name="tiny",
    igniter=IgniterConfig(base_width=2, head_features=2, dropout=0.0),
    transunet=TransUNetConfig(
        size=(64, 64), in_channels=1, resnet_width=8, resnet_units=(1, 1, 1), resnet_groups=2, hidden=32,
        mlp=64, layers=2, heads=2, dropout=0.0, decoder=(32, 24, 16, 16, 8),
    ),
    preprocessing=preprocessing_spec.TINY,
    igniter_phases=(
        Phase(
            name="seed", optimizer="adam", learning_rate=3e-3, schedule="cosine", steps=60, batch=4,
            weight_decay=1e-4, seed_share=1.0, all_modalities=True, foreground_share=0.75, augmentation="mild",
        ),
    ),
    recipes={
        "paper": (
            Phase(
                name="corrected", optimizer="sgd", learning_rate=0.01, schedule="poly", epochs=4, batch=4,
                weight_decay=1e-4, augmentation="paper",
            ),
        ),
        "default": (
            Phase(
                name="seed", optimizer="adamw", learning_rate=3e-3, schedule="cosine", steps=40, batch=8,
                weight_decay=1e-2, seed_share=1.0, foreground_share=0.75, augmentation="mild", clip_norm=1.0,
            ),
            Phase(
                name="corrected", optimizer="adamw", learning_rate=2e-3, schedule="cosine", steps=20, batch=8,
                weight_decay=1e-2, seed_share=0.25, foreground_share=0.75, augmentation="mild", clip_norm=1.0,
            ),
        ),
    },
    checkpoint_every_steps=10,
)  # fmt: skip

DEMO = Preset(
    name="demo",
    igniter=IgniterConfig(base_width=3, head_features=4, dropout=0.0),
    transunet=TransUNetConfig(
        size=(96, 96), in_channels=3, resnet_width=12, resnet_units=(1, 2, 2), resnet_groups=3, hidden=64,
        mlp=256, layers=2, heads=4, dropout=0.0, decoder=(96, 48, 32, 16, 12),
    ),
    preprocessing=preprocessing_spec.DEMO,
    igniter_phases=(
        Phase(
            name="seed", optimizer="adam", learning_rate=2e-3, schedule="cosine", steps=250, warmup_steps=10, batch=8,
            weight_decay=1e-4, seed_share=1.0, all_modalities=True, foreground_share=0.75, augmentation="mild",
        ),
    ),
    recipes={
        "paper": CPU.recipes["paper"],
        "default": (
            Phase(
                name="seed", optimizer="adamw", learning_rate=2e-3, schedule="cosine", steps=200, warmup_steps=10,
                batch=12, weight_decay=1e-2, seed_share=1.0, foreground_share=0.75, augmentation="mild",
                clip_norm=1.0,
            ),
            Phase(
                name="corrected", optimizer="adamw", learning_rate=1e-3, schedule="cosine", steps=100,
                warmup_steps=5, batch=12, weight_decay=1e-2, seed_share=0.25, foreground_share=0.75,
                augmentation="mild", clip_norm=1.0,
            ),
        ),
    },
    channels_last=True,
    checkpoint_every_seconds=20.0,
)  # fmt: skip

PRESETS: dict[str, Preset] = {preset.name: preset for preset in (PAPER, NATIVE, CPU, TINY, DEMO)}

#: Presets and the recipes that each has.
CATALOGUE: Final[Mapping[str, frozenset[str]]] = {name: frozenset(preset.recipes) for name, preset in PRESETS.items()}
