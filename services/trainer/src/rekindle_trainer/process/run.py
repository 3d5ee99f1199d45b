"""One attempt at a training run, from its spec to its result."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from rekindle.vocabulary import Example
from rekindle_servicekit.layout import RunKeys
from rekindle_servicekit.objects import Objects

from rekindle_trainer.domain.presets import Preset
from rekindle_trainer.domain.spec import BadSpec, RunSpec, compact_json, parse_spec
from rekindle_trainer.process.evaluation import Served, evaluate_case
from rekindle_trainer.process.export import in_layout
from rekindle_trainer.process.metrics import MetricsWriter, NullMetrics
from rekindle_trainer.process.networks.igniter import Igniter, SingleModality
from rekindle_trainer.process.package import load_package, write_package
from rekindle_trainer.process.recipes import Start, preprocessing_of, preset_of, start
from rekindle_trainer.process.training.checkpoint import Checkpoints, Progress, store_weights
from rekindle_trainer.process.training.data import load_cases
from rekindle_trainer.process.training.distributed import ALONE, Ranks
from rekindle_trainer.process.training.loop import Job, RunStopped, train


@dataclass(frozen=True)
class Attempt:
    """What every step of an attempt needs."""

    objects: Objects
    spec: RunSpec
    preset: Preset
    beginning: Start
    number: int
    metrics: MetricsWriter | NullMetrics
    should_stop: Callable[[], bool]
    ranks: Ranks

    def check(self) -> None:
        """Raise RunStopped where the run is to stop."""
        if self.ranks.is_told_to_stop(self.should_stop()):
            raise RunStopped


def run(
    objects: Objects,
    run_id: str,
    attempt: int,
    should_stop: Callable[[], bool] = lambda: False,
    *,
    device: str = "cpu",
    ranks: Ranks = ALONE,
) -> dict[str, Any]:
    """Train, evaluate and package as ``runs/<run_id>/spec.json`` says; the result, which is stored last.

    Goes on from the newest checkpoint of any attempt of the run. Switches torch to deterministic algorithms.
    Of several processes all train, and the first one writes, evaluates and has the result; the others wait and
    have an empty one. Raises BadSpec, RunStopped (after a checkpoint), training.loop.Diverged, export.ParityError, and
    of several processes RankLost and RanksDisagree.
    """
    result_key = RunKeys(run_id).attempt(attempt).result
    if objects.exists(result_key):
        return json.loads(objects.get(result_key))
    spec = _read_spec(objects, run_id)
    preset = preset_of(spec)
    # CUDA has no deterministic backward of bilinear upsampling; there a warning has to do.
    torch.use_deterministic_algorithms(True, warn_only=device != "cpu")
    # A debugging aid that costs time; torch's stubs do not know it.
    torch.utils.deterministic.fill_uninitialized_memory = False  # pyright: ignore[reportAttributeAccessIssue]
    metrics = MetricsWriter(objects, run_id, attempt) if ranks.is_first else NullMetrics()
    metrics.report(phase="prepare", step=0, epoch=0, epochs=0)
    beginning = start(spec, preset, objects)
    work = Attempt(objects, spec, preset, beginning, attempt, metrics, should_stop, ranks)
    _check_batches(beginning, ranks)
    progress = _train(work, device)
    if not ranks.is_first:
        if not ranks.stop_waiting(should_stop):
            raise RunStopped
        return {}
    result = _finish(work, progress)
    objects.put(result_key, compact_json(result))
    ranks.finish()
    return result


def _finish(work: Attempt, progress: Progress) -> dict[str, Any]:
    """Package and evaluate; the result."""
    spec, beginning = work.spec, work.beginning
    weights = store_weights(work.objects, beginning.network, beginning.description)
    packages = _packages(work, weights)
    return {
        "weights_digest": weights,
        "packages": [{"modality": m, "package_digest": digest} for m, digest in packages.items()],
        "snapshot_digest": spec.snapshot_digest(),
        **_evaluate(work, packages[spec.modality], progress),
        "train_seconds": round(progress.train_seconds, 3),
        "epochs": progress.epochs,
        "final_loss": progress.last_loss,
        "started_from": beginning.started_from,
        "phase_weights": progress.phase_weights,
    }


def _check_batches(beginning: Start, ranks: Ranks) -> None:
    """BadSpec where a process would get no slice of a batch."""
    for phase in beginning.phases:
        if phase.batch < ranks.size:
            raise BadSpec(
                "BATCH_TOO_SMALL",
                f"phase {phase.name!r} draws {phase.batch} slices per step, too few for {ranks.size} processes: give "
                f"the run at most {phase.batch} GPUs, or choose a preset with larger batches",
            )


def _read_spec(objects: Objects, run_id: str) -> RunSpec:
    key = RunKeys(run_id).spec
    if not objects.exists(key):
        raise BadSpec("SPEC_MISSING", f"there is no {key}")
    return parse_spec(objects.get(key))


def _train(work: Attempt, device: str) -> Progress:
    spec, preset, beginning = work.spec, work.preset, work.beginning
    cases = load_cases(
        work.objects,
        _used(spec, beginning),
        spec.organs,
        lambda modality: preprocessing_of(preset, spec.kind, modality),
        # One of several cannot leave by itself: they stop together at the first step.
        work.check if work.ranks.size == 1 else lambda: None,
    )
    layout = torch.channels_last if preset.channels_last else torch.contiguous_format
    network = in_layout(beginning.network.to(device), layout)
    return train(
        Job(
            network,
            beginning.phases,
            cases,
            spec.modality,
            preset,
            beginning.channels,
            spec.seed,
            torch.device(device),
            work.ranks,
        ),
        Checkpoints(work.objects, spec.run_id, work.number),
        report=work.metrics.report,
        should_stop=work.should_stop,
        phase_done=lambda _phase: store_weights(work.objects, network, beginning.description, work.ranks),
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


def _packages(work: Attempt, weights: str) -> dict[str, str]:
    """Package digest by modality: the igniter once per modality that it was trained on."""
    network = work.beginning.network
    modalities = network.modalities if isinstance(network, Igniter) else (work.spec.modality,)
    return {
        modality: write_package(
            work.objects,
            work.spec,
            SingleModality(network, modality) if isinstance(network, Igniter) else network,
            modality=modality,
            preprocessing=preprocessing_of(work.preset, work.spec.kind, modality),
            weights=weights,
        )
        for modality in modalities
    }


def _evaluate(work: Attempt, package: str, progress: Progress) -> dict[str, Any]:
    """Measure the packages themselves, as they are served: candidate and current on the held-out cases."""
    spec, threads = work.spec, torch.get_num_threads()

    def measure(served: Served, examples: Sequence[Example]) -> list[dict[str, Any]]:
        cases: list[dict[str, Any]] = []
        for example in examples:
            work.check()
            work.metrics.report(phase="evaluate", step=progress.step, epoch=progress.epochs, epochs=progress.epochs)
            cases.append(evaluate_case(work.objects, example, spec.organs, served))
        return cases

    candidate = load_package(work.objects, package, threads=threads)
    heldout = [example for example in spec.heldout if example.modality == spec.modality]
    targets = [example for example in spec.training if example.source == "target"]
    current: list[dict[str, Any]] = []
    if spec.current_package is not None:
        current = measure(load_package(work.objects, spec.current_package, threads=threads), heldout)
    return {
        "evaluation": {"candidate": measure(candidate, heldout), "current": current},
        "training_check": measure(candidate, targets[: work.preset.check_cases]),
    }
