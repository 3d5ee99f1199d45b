"""Triton: what it adds to a batch over the embedded engine, with and without shared memory, and its start and loads."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import numpy as np
from onnx import TensorProto, helper, numpy_helper
from rekindle_imaging.package import parse_manifest
from rekindle_inference.adapters.onnxruntime import OnnxRuntimeEngine
from rekindle_inference.ports import Engine, Package
from rekindle_servicekit.layout import PackageKeys
from rekindle_servicekit.objects import DirectoryObjects, Objects
from rekindle_servicekit.workers import Cancellation

from bench.measure import Figure, Options, Row, alternate

# The servers that the tests start.
sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "support"))

from engines import triton_engine
from servers.triton import TritonServer

BATCH, SIZE, CLASSES = 16, 256, 3
EMBEDDED = "embedded engine"


def measure(options: Options) -> list[Row]:
    repeats = 3 if options.quick else 20
    objects = DirectoryObjects(options.folder / "objects")
    with ExitStack() as stack:
        server = TritonServer(options.folder / "triton")
        stack.callback(server.stop)
        starts = [_start(server) for _ in range(1 if options.quick else 3)]
        engines: dict[str, Engine] = {EMBEDDED: OnnxRuntimeEngine(objects)}
        for name, shared in (("shared memory", True), ("socket", False)):
            engines[name] = stack.enter_context(
                triton_engine(
                    objects, address=server.address, repository=server.repository, shared=shared, max_batch=BATCH
                )
            )
        rows = _batches(objects, engines, repeats, copies=0)
        rows += _batches(objects, engines, 1 if options.quick else 5, copies=2)
        rows += _loads(objects, engines, 1 if options.quick else 5)
    embedded = [_seconds(_import_embedded) for _ in range(len(starts))]
    return [*rows, _row("started and ready", "s", starts, embedded, f"{EMBEDDED}, imported")]


def _batches(objects: Objects, engines: dict[str, Engine], repeats: int, *, copies: int) -> list[Row]:
    """One batch at a time, then four under way, through a graph that costs nothing or one that computes."""
    package = make_package(objects, copies)
    going = Cancellation()
    images = np.random.default_rng(0).standard_normal((4 * BATCH, 3, SIZE, SIZE), dtype=np.float32)
    graph = f"{copies} convolutions" if copies else "a graph that costs nothing"
    rows: list[Row] = []
    for count, what in ((BATCH, "one batch of 16 slices"), (4 * BATCH, "64 slices, four batches under way")):
        part = images[:count]
        calls = [_call(engine, package, part, going) for engine in engines.values()]
        seconds = dict(zip(engines, alternate(repeats, *calls), strict=True))
        for name in ("shared memory", "socket"):
            ours, theirs = ([1000 * each for each in seconds[key]] for key in (name, EMBEDDED))
            rows.append(_row(f"{what}, {graph}, {name}", "ms", ours, theirs, EMBEDDED))
    return rows


def _loads(objects: Objects, engines: dict[str, Engine], repeats: int) -> list[Row]:
    """A version that was not served before."""
    packages = [make_package(objects, 2, seed) for seed in range(1, repeats + 2)]
    seconds = {
        name: [_seconds(lambda: engines[name].load(package)) for package in packages[1:]]  # noqa: B023 - called at once
        for name in ("shared memory", EMBEDDED)
    }
    return [_row("a new version, ready", "s", seconds["shared memory"], seconds[EMBEDDED], EMBEDDED)]


def _row(what: str, unit: str, triton: list[float], other: list[float], instead: str) -> Row:
    return Row(
        what=f"Triton, {what}", unit=unit, more_is_better=False,
        rekindle=Figure.of(triton), instead=instead, other=Figure.of(other),
    )  # fmt: skip


def _call(engine: Engine, package: Package, images: np.ndarray, going: Cancellation) -> Callable[[], object]:
    return lambda: engine.predict(package, images, going)


def _seconds(action: Callable[[], object]) -> float:
    began = time.perf_counter()
    action()
    return time.perf_counter() - began


def _start(server: TritonServer) -> float:
    server.stop()
    server.start()
    return server.seconds_to_ready


def _import_embedded() -> None:
    subprocess.run([sys.executable, "-c", "import rekindle_inference.adapters.onnxruntime"], check=True)


def make_package(objects: Objects, copies: int, seed: int = 0) -> Package:
    """A graph of `copies` 3 x 3 convolutions of 8 channels, between two of 1 x 1 that cost next to nothing."""
    random = np.random.default_rng(seed)
    width = 8 if copies else 3
    shapes = [(width, 3, 1, 1), *[(width, width, 3, 3)] * copies, (CLASSES, width, 1, 1)]
    weights = [(random.standard_normal(shape) / np.sqrt(np.prod(shape[1:]))).astype(np.float32) for shape in shapes]
    names = ["image", *(f"layer{i}" for i in range(len(weights) - 1)), "logits"]
    nodes = [
        helper.make_node("Conv", [names[i], f"weight{i}"], [names[i + 1]], pads=[weight.shape[2] // 2] * 4)
        for i, weight in enumerate(weights)
    ]
    graph = helper.make_graph(
        nodes,
        "bench",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["N", 3, SIZE, SIZE])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["N", CLASSES, SIZE, SIZE])],
        [numpy_helper.from_array(weight, f"weight{i}") for i, weight in enumerate(weights)],
    )
    opsets = [helper.make_opsetid("", 18)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=9).SerializeToString()
    manifest = json.dumps(_manifest(model)).encode()
    package = Package(digest=hashlib.sha256(manifest).hexdigest(), manifest=parse_manifest(manifest))
    objects.put(PackageKeys(package.digest).model, model)
    return package


def _manifest(model: bytes) -> dict[str, object]:
    return {
        "format": 1,
        "network": "external",
        "classes": [{"id": "liver", "label_value": 1}, {"id": "spleen", "label_value": 2}],
        "modality": "CT",
        "preprocessing": {
            "orientation": "LPS",
            "spacing_mm": [1.5, 1.5],
            "slice_spacing_mm": None,
            "size": [SIZE, SIZE],
            "crop": "none",
            "window": {"kind": "fixed", "low": -200.0, "high": 250.0},
            "normalization": "zscore",
            "channels": 3,
        },
        "opset": 18,
        "model_digest": hashlib.sha256(model).hexdigest(),
        "memory_bytes": 1_000_000,
        "reference": {"input_seed": 1, "batch": 1, "logits_sample": [0.0], "tolerance": 1e-3},
        "lineage": {},
        "postprocessing": {"largest_component": False},
    }
