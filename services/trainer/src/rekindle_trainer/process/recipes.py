"""Recipes: from a spec to a network with its starting weights and the phases that it goes through."""

from __future__ import annotations

import hashlib
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch
from rekindle_imaging.preprocessing_spec import Preprocessing
from rekindle_servicekit import layout
from rekindle_servicekit.objects import Objects
from torch import nn

from rekindle_trainer.domain.presets import PRESETS, Phase, Preset
from rekindle_trainer.domain.spec import BadSpec, RunSpec
from rekindle_trainer.process.networks.igniter import Igniter
from rekindle_trainer.process.networks.pretrained import IncompatibleWeights, load_npz
from rekindle_trainer.process.networks.transunet import TransUNet
from rekindle_trainer.process.training.checkpoint import unpack_weights
from rekindle_trainer.process.training.sampling import stream_seed

#: The phase that pre-trains a sustainer on the seed set; left out where initial weights replace it.
SEED_PHASE = "seed"
_ZIP_MAGIC = b"PK\x03\x04"


@dataclass(frozen=True)
class Start:
    """What a run begins with."""

    network: nn.Module
    phases: tuple[Phase, ...]
    channels: int
    #: What the weights are of; travels with them and decides whether they fit another run.
    description: dict[str, Any]
    #: ``nothing``, ``seed_set``, ``initial_weights`` or ``pretrained``
    started_from: str


def preset_of(spec: RunSpec) -> Preset:
    if spec.preset not in PRESETS:
        raise BadSpec("UNKNOWN_PRESET", f"preset {spec.preset!r} does not exist: use one of {sorted(PRESETS)}")
    preset = PRESETS[spec.preset]
    if spec.kind == "sustainer" and spec.recipe not in preset.recipes:
        raise BadSpec("UNKNOWN_RECIPE", f"recipe {spec.recipe!r} does not exist: use one of {sorted(preset.recipes)}")
    return preset


def preprocessing_of(preset: Preset, kind: str, modality: str) -> Preprocessing:
    """The preprocessing that a network of this kind is trained and served with."""
    channels = preset.igniter.in_channels if kind == "igniter" else preset.transunet.in_channels
    return replace(preset.preprocessing.for_modality(modality), channels=channels)


def start(spec: RunSpec, preset: Preset, objects: Objects) -> Start:
    """Build the network from the run's seed and give it its starting weights; BadSpec where they cannot be used."""
    torch.manual_seed(stream_seed(spec.seed, "initialisation")[0])
    if spec.kind == "igniter":
        return _start_igniter(spec, preset, objects)
    network = TransUNet(preset.transunet, spec.classes)
    description = _description(spec, "transunet", asdict(preset.transunet))
    phases = _with_data(preset.recipes[spec.recipe], spec)
    if spec.initial_weights is None:
        seeded = phases[0].name == SEED_PHASE and spec.recipe != "paper"
        return Start(network, phases, preset.transunet.in_channels, description, "seed_set" if seeded else "nothing")
    started_from = _load_initial(network, spec.initial_weights, description, objects)
    if started_from is None:
        if spec.recipe == "paper":
            raise BadSpec("INCOMPATIBLE_WEIGHTS", "the initial weights are of another network than the preset's")
        # The default recipe can make its own starting weights, as in a project's first round.
        return Start(network, phases, preset.transunet.in_channels, description, "seed_set")
    if started_from == "initial_weights":
        phases = tuple(phase for phase in phases if phase.name != SEED_PHASE) or phases
    return Start(network, phases, preset.transunet.in_channels, description, started_from)


def _start_igniter(spec: RunSpec, preset: Preset, objects: Objects) -> Start:
    if spec.modality not in spec.modalities:
        raise BadSpec("MODALITY_MISSING", f"the igniter needs seed cases of the target's modality {spec.modality}")
    network = Igniter(preset.igniter, spec.classes, spec.modalities)
    description = _description(spec, "igniter", asdict(preset.igniter)) | {"modalities": list(spec.modalities)}
    started_from = "nothing"
    if spec.initial_weights is not None:
        if _load_initial(network, spec.initial_weights, description, objects) is None:
            raise BadSpec("INCOMPATIBLE_WEIGHTS", "the initial weights are of another network than the preset's")
        started_from = "initial_weights"
    return Start(network, preset.igniter_phases, preset.igniter.in_channels, description, started_from)


def _with_data(phases: tuple[Phase, ...], spec: RunSpec) -> tuple[Phase, ...]:
    """The phases that this snapshot has slices for."""
    kept = []
    for phase in phases:
        examples = [e for e in spec.training if phase.all_modalities or e.modality == spec.modality]
        has_seed = phase.seed_share > 0 and any(e.source == "seed" for e in examples)
        has_target = phase.seed_share < 1 and any(e.source == "target" for e in examples)
        if has_target or (has_seed and phase.seed_share == 1):
            kept.append(phase)
    if not kept:
        raise BadSpec("NO_TRAINING_DATA", f"recipe {spec.recipe!r} has nothing to train on in this snapshot")
    return tuple(kept)


def _description(spec: RunSpec, network: str, config: dict[str, Any]) -> dict[str, Any]:
    plain = {key: list(value) if isinstance(value, tuple) else value for key, value in config.items()}
    return {"network": network, "config": plain, "classes": [organ.id for organ in spec.organs]}


def _load_initial(network: nn.Module, digest: str, description: dict[str, Any], objects: Objects) -> str | None:
    """Fill `network`; what it was filled from, or None where the weights are of another network."""
    key = layout.weights(digest)
    if not objects.exists(key):
        raise BadSpec("OBJECT_MISSING", f"there are no weights {digest}")
    data = objects.get(key)
    if hashlib.sha256(data).hexdigest() != digest:
        raise BadSpec("DIGEST_MISMATCH", f"weights {digest} do not have the digest that they are named by")
    if data.startswith(_ZIP_MAGIC):
        if not isinstance(network, TransUNet):
            return None
        try:
            load_npz(network, data)
        except IncompatibleWeights:
            return None
        return "pretrained"
    try:
        tensors, theirs = unpack_weights(data)
    except ValueError as error:
        raise BadSpec("NOT_WEIGHTS", f"weights {digest}: {error}") from None
    if theirs != description:
        return None
    network.load_state_dict(tensors)
    return "initial_weights"
