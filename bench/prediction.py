"""Prediction: a package in the embedded engine beside the same network in torch's eager mode."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray
from rekindle_imaging.canonical import decode, encode
from rekindle_imaging.package import parse_manifest
from rekindle_imaging.preprocessing import prepare, stack_channels
from rekindle_inference.domain.segmentations import Priority
from rekindle_inference.ports import Engine, Package, Unobserved
from rekindle_inference.usecases.gate import PriorityGate
from rekindle_inference.usecases.segmentation import segment
from rekindle_servicekit.layout import PackageKeys
from rekindle_servicekit.objects import DirectoryObjects
from rekindle_servicekit.workers import Cancellation

from bench.measure import Figure, Options, Row, in_child, peak_rss_bytes
from bench.phantom import abdomen

if TYPE_CHECKING:
    from rekindle_trainer.process.networks.transunet import TransUNet

MB = 1e6
CLASSES = 3
#: Typical sizes of liver and spleen in a scan of the abdomen.
FOREGROUND_SHARE = 0.05
Kind = Literal["rekindle", "torch"]


@dataclass(frozen=True, kw_only=True)
class Task:
    """One network on one volume."""

    folder: Path
    preset: str
    package: str
    slices: int
    repeats: int
    threads: int


@dataclass(frozen=True, kw_only=True)
class Taken:
    """Seconds of each repeat, and the most memory that the process held."""

    network: list[float]
    volume: list[float]
    peak_bytes: int


def measure(options: Options) -> list[Row]:
    slices, repeats = (16, 1) if options.quick else (64, 3)
    rows = _compare(options.folder, "cpu", slices, repeats)
    if options.full:
        rows += _compare(options.folder, "paper", 16, 1)
    return rows


def _compare(folder: Path, preset: str, slices: int, repeats: int) -> list[Row]:
    """With the one thread that the service takes by default, and with all cores."""
    folder = folder / preset
    package = in_child(export, folder, preset, slices)
    rows: list[Row] = []
    for threads in sorted({1, os.cpu_count() or 1}):
        task = Task(folder=folder, preset=preset, package=package, slices=slices, repeats=repeats, threads=threads)
        ours, theirs = in_child(predict, "rekindle", task), in_child(predict, "torch", task)
        rows += _rows(task, ours, theirs)
    return rows


def _rows(task: Task, ours: Taken, theirs: Taken) -> list[Row]:
    name = f"TransUNet {task.preset}, {task.slices} slices, {task.threads} thread{'s' * (task.threads > 1)}"
    rows = [
        Row(
            what=f"{name}, {what}", unit="slices/s", more_is_better=True, rekindle=Figure.rate(task.slices, mine),
            instead="torch eager", other=Figure.rate(task.slices, other),
        )
        for what, mine, other in (
            ("network alone", ours.network, theirs.network),
            ("volume to mask", ours.volume, theirs.volume),
        )
    ]  # fmt: skip
    peaks = [Figure.of([taken.peak_bytes / MB]) for taken in (ours, theirs)]
    rows.append(
        Row(
            what=f"{name}, peak memory of the process", unit="MB", more_is_better=False,
            rekindle=peaks[0], instead="torch eager", other=peaks[1],
        )
    )  # fmt: skip
    return rows


def export(folder: Path, preset_name: str, slices: int) -> str:
    """Store an untrained network as a package and as torch's weights, and a volume; the package's digest."""
    import torch
    from rekindle.vocabulary import Modality, Organ, RunKind
    from rekindle_trainer.domain.presets import PRESETS
    from rekindle_trainer.domain.spec import RunSpec
    from rekindle_trainer.process.networks.transunet import TransUNet
    from rekindle_trainer.process.package import write_package
    from rekindle_trainer.process.recipes import preprocessing_of

    preset = PRESETS[preset_name]
    preprocessing = preprocessing_of(preset, "sustainer", "CT")
    image, _ = abdomen(slices, 256, in_plane_mm=1.5, slice_mm=preprocessing.slice_spacing_mm or 5.0)
    torch.manual_seed(0)
    network = TransUNet(preset.transunet, CLASSES).eval()
    prepared = prepare(image, preprocessing).images
    _balance(network, stack_channels(prepared, np.arange(0, slices, 4), preprocessing.channels))
    spec = RunSpec(
        run_id="bench", project_id="bench", kind=RunKind.SUSTAINER, preset=preset_name, recipe="default", seed=0,
        modality=Modality.CT, organs=(Organ(id="liver", label_value=1), Organ(id="spleen", label_value=2)),
        training=(), heldout=(), initial_weights=None, current_package=None,
    )  # fmt: skip
    objects = DirectoryObjects(folder / "objects")
    digest = write_package(objects, spec, network, modality=Modality.CT, preprocessing=preprocessing, weights="0" * 64)
    torch.save(network.state_dict(), folder / "weights.pt")
    (folder / "image").write_bytes(encode(image, "image"))
    return digest


def _balance(network: TransUNet, images: NDArray[np.float32]) -> None:
    """Shift background's logit so that a share of the pixels is foreground: what follows the network costs by it."""
    import torch

    with torch.no_grad():
        logits = network(torch.from_numpy(images)).numpy()
        lead = np.max(logits[:, 1:], axis=1) - logits[:, 0]
        assert network.head.bias is not None
        network.head.bias[0] += float(np.quantile(lead, 1 - FOREGROUND_SHARE))


def predict(kind: Kind, task: Task) -> Taken:
    """Run the network alone, then from volume to mask by the service's own use case."""
    objects = DirectoryObjects(task.folder / "objects")
    manifest = parse_manifest(objects.get(PackageKeys(task.package).manifest))
    package = Package(digest=task.package, manifest=manifest)
    engine = _engine(kind, task, objects)
    image = decode((task.folder / "image").read_bytes())
    images = stack_channels(prepare(image, manifest.preprocessing).images, None, manifest.preprocessing.channels)
    going = Cancellation()

    def network() -> None:
        for first in range(0, len(images), engine.batch_size):
            engine.predict(package, images[first : first + engine.batch_size], going)

    def volume() -> None:
        with PriorityGate().present(Priority.ROUTINE) as turn:
            segment(image, package, engine, turn, going, lambda _done, _total: None, Unobserved())

    engine.predict(package, images[:1], going)
    return Taken(
        network=_seconds(network, task.repeats),
        volume=_seconds(volume, task.repeats),
        peak_bytes=peak_rss_bytes(),
    )


def _seconds(action: Callable[[], None], repeats: int) -> list[float]:
    seconds: list[float] = []
    for _ in range(repeats):
        began = time.perf_counter()
        action()
        seconds.append(time.perf_counter() - began)
    return seconds


def _engine(kind: Kind, task: Task, objects: DirectoryObjects) -> Engine:
    """Imported here, so that neither process pays for the other's libraries."""
    if kind == "rekindle":
        from rekindle_inference.adapters.onnxruntime import OnnxRuntimeEngine

        return OnnxRuntimeEngine(objects, threads=task.threads)
    from bench.torch_engine import TorchEngine

    return TorchEngine(task.folder / "weights.pt", task.preset, CLASSES, threads=task.threads)
