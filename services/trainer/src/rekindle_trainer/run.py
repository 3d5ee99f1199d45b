"""One attempt at a training run, from its spec to its result."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from typing import Any

import torch
from rekindle_servicekit.objects import Objects

from rekindle_trainer.evaluation import Served, evaluate_case
from rekindle_trainer.metrics import MetricsWriter
from rekindle_trainer.networks.igniter import Igniter, SingleModality
from rekindle_trainer.package import load_package, write_package
from rekindle_trainer.presets import Preset
from rekindle_trainer.recipes import Start, preprocessing_of, preset_of, start
from rekindle_trainer.spec import BadSpec, Example, RunSpec, compact_json, parse_spec
from rekindle_trainer.training.checkpoint import Checkpoints, Progress, store_weights
from rekindle_trainer.training.data import load_cases
from rekindle_trainer.training.loop import Job, RunStopped, train

_log = logging.getLogger(__name__)


def run(
    objects: Objects, run_id: str, attempt: int, should_stop: Callable[[], bool] = lambda: False, *, device: str = "cpu"
) -> dict[str, Any]:
    """Train, evaluate and package as ``runs/<run_id>/spec.json`` says; the result, which is stored last.

    Goes on from the newest checkpoint of any attempt of the run. Raises BadSpec, RunStopped (after a checkpoint),
    training.loop.Diverged, export.ParityError.
    """
    result_key = f"runs/{run_id}/{attempt}/result.json"
    if objects.exists(result_key):
        return json.loads(objects.get(result_key))
    spec = _read_spec(objects, run_id)
    preset = preset_of(spec)
    # CUDA has no deterministic backward of bilinear upsampling; there a warning has to do.
    torch.use_deterministic_algorithms(True, warn_only=device != "cpu")
    torch.utils.deterministic.fill_uninitialized_memory = False  # a debugging aid that costs time

    def check() -> None:
        if should_stop():
            raise RunStopped

    metrics = MetricsWriter(objects, run_id, attempt)
    metrics.report(phase="prepare", step=0, epoch=0, epochs=0)
    beginning = start(spec, preset, objects)
    progress = _train(objects, spec, preset, beginning, attempt, metrics, should_stop, device)
    weights = store_weights(objects, beginning.network, beginning.description)
    packages = _packages(objects, spec, preset, beginning, weights)
    evaluation = _evaluate(objects, spec, preset, packages, metrics, progress, check)
    result = {
        "weights_digest": weights,
        "packages": [{"modality": m, "package_digest": digest} for m, digest in packages.items()],
        "snapshot_digest": spec.snapshot_digest(),
        **evaluation,
        "train_seconds": round(progress.train_seconds, 3),
        "epochs": progress.epochs,
        "final_loss": progress.last_loss,
        "started_from": beginning.started_from,
        "phase_weights": progress.phase_weights,
    }
    objects.put(result_key, compact_json(result))
    return result


def _read_spec(objects: Objects, run_id: str) -> RunSpec:
    key = f"runs/{run_id}/spec.json"
    if not objects.exists(key):
        raise BadSpec("SPEC_MISSING", f"there is no {key}")
    return parse_spec(objects.get(key))


def _train(
    objects: Objects,
    spec: RunSpec,
    preset: Preset,
    beginning: Start,
    attempt: int,
    metrics: MetricsWriter,
    should_stop: Callable[[], bool],
    device: str,
) -> Progress:
    def check() -> None:
        if should_stop():
            raise RunStopped

    cases = load_cases(
        objects, _used(spec, beginning), spec.organs, lambda m: preprocessing_of(preset, spec.kind, m), check
    )
    layout = torch.channels_last if preset.channels_last else torch.contiguous_format
    beginning.network.to(device, memory_format=layout)
    job = Job(
        beginning.network, beginning.phases, cases, spec.modality, preset, beginning.channels, spec.seed,
        torch.device(device),
    )  # fmt: skip
    return train(
        job,
        Checkpoints(objects, spec.run_id, attempt),
        report=metrics.report,
        should_stop=should_stop,
        phase_done=lambda _phase: store_weights(objects, beginning.network, beginning.description),
    )


def _used(spec: RunSpec, beginning: Start) -> list[Example]:
    """Examples that some phase draws from; the others need not be read."""
    return [
        example
        for example in spec.training
        if any(
            (phase.all_modalities or example.modality == spec.modality)
            and (phase.seed_share > 0 if example.source == "seed" else phase.seed_share < 1)
            for phase in beginning.phases
        )
    ]


def _packages(
    objects: Objects, spec: RunSpec, preset: Preset, beginning: Start, weights: str
) -> dict[str, str]:
    """Package digest by modality: the igniter once per modality that it was trained on."""
    network = beginning.network
    modalities = network.modalities if isinstance(network, Igniter) else (spec.modality,)
    return {
        modality: write_package(
            objects,
            spec,
            SingleModality(network, modality) if isinstance(network, Igniter) else network,
            modality=modality,
            preprocessing=preprocessing_of(preset, spec.kind, modality),
            weights=weights,
        )
        for modality in modalities
    }


def _evaluate(
    objects: Objects,
    spec: RunSpec,
    preset: Preset,
    packages: dict[str, str],
    metrics: MetricsWriter,
    progress: Progress,
    check: Callable[[], None],
) -> dict[str, Any]:
    """Measure the packages themselves, as they will be served."""
    threads = torch.get_num_threads()
    candidate = load_package(objects, packages[spec.modality], threads=threads)
    current = load_package(objects, spec.current_package, threads=threads) if spec.current_package else None

    def measure(served: Served | None, examples: tuple[Example, ...]) -> list[dict[str, Any]]:
        cases = []
        for example in examples if served else ():
            check()
            metrics.report(phase="evaluate", step=progress.step, epoch=progress.epochs, epochs=progress.epochs)
            cases.append(evaluate_case(objects, example, spec.organs, served))
        return cases

    targets = tuple(e for e in spec.training if e.source == "target")[: preset.check_cases]
    heldout = tuple(e for e in spec.heldout if e.modality == spec.modality)
    return {
        "evaluation": {"candidate": measure(candidate, heldout), "current": measure(current, heldout)},
        "training_check": measure(candidate, targets),
    }
