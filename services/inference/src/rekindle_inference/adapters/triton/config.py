"""`config.pbtxt`: how Triton is to run a package, rendered from its manifest and this deployment's settings."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from rekindle_imaging.package import Manifest

InstanceKind = Literal["auto", "gpu", "cpu"]
Accelerator = Literal["none", "tensorrt"]
Precision = Literal["fp32", "fp16"]

_KINDS: dict[InstanceKind, str] = {"auto": "KIND_AUTO", "gpu": "KIND_GPU", "cpu": "KIND_CPU"}
#: What TensorRT may use while it builds an engine.
_WORKSPACE_BYTES = 2 * 1024**3


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelOptions:
    """How this deployment runs models."""

    #: Slices that one request may hold, and that Triton may gather into one batch.
    max_batch: int = 16
    #: Copies of a model that run side by side; None leaves number and place to Triton.
    instances: int | None = None
    kind: InstanceKind = "auto"
    #: How long Triton may wait for more requests to gather; None: every request by itself.
    max_queue_delay_us: int | None = 2000
    accelerator: Accelerator = "none"
    #: Of TensorRT's kernels.
    precision: Precision = "fp32"


def render_config(name: str, digest: str, manifest: Manifest, options: ModelOptions) -> str:
    """The text of `config.pbtxt`; the same for the same input.

    Tensors `image` float32 (C, H, W) and `logits` float32 (K, H, W), with a batch dimension in front of both.
    """
    channels, rows, columns = manifest.input_shape
    parts = [
        f'name: "{name}"',
        'backend: "onnxruntime"',
        f"max_batch_size: {options.max_batch}",
        _tensor("input", "image", (channels, rows, columns)),
        _tensor("output", "logits", (manifest.n_classes, rows, columns)),
        "version_policy { specific { versions: [ 1 ] } }",
        *_instances(options),
        *_batching(options),
        *_acceleration(options),
        # Read back by the service, also by one that has just started.
        _parameter("rekindle_package", digest),
        _parameter("rekindle_memory_bytes", str(manifest.memory_bytes)),
    ]
    return "\n".join(parts) + "\n"


def _tensor(what: str, name: str, shape: tuple[int, int, int]) -> str:
    dims = ", ".join(str(size) for size in shape)
    return f'{what} [\n  {{ name: "{name}" data_type: TYPE_FP32 dims: [ {dims} ] }}\n]'


def _instances(options: ModelOptions) -> list[str]:
    if options.instances is None and options.kind == "auto":
        return []
    return [f"instance_group [\n  {{ count: {options.instances or 1} kind: {_KINDS[options.kind]} }}\n]"]


def _batching(options: ModelOptions) -> list[str]:
    if options.max_queue_delay_us is None:
        return []
    return [f"dynamic_batching {{ max_queue_delay_microseconds: {options.max_queue_delay_us} }}"]


def _acceleration(options: ModelOptions) -> list[str]:
    if options.accelerator == "none":
        return []
    values = {"precision_mode": options.precision.upper(), "max_workspace_size_bytes": str(_WORKSPACE_BYTES)}
    parameters = "\n".join(f'        parameters {{ key: "{key}" value: "{value}" }}' for key, value in values.items())
    return [
        "optimization {\n  execution_accelerators {\n    gpu_execution_accelerator : [\n"
        f'      {{\n        name : "tensorrt"\n{parameters}\n      }}\n    ]\n  }}\n}}'
    ]


def _parameter(key: str, value: str) -> str:
    return f'parameters {{ key: "{key}" value {{ string_value: "{value}" }} }}'
