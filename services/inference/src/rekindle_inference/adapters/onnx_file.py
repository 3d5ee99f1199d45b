"""An ONNX file looked at without running it: self-contained, known operators, the graph's contract."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import onnx
from google.protobuf.message import DecodeError, Message
from rekindle.errors import InvalidInput
from rekindle_imaging.package import Manifest

#: Operators that ONNX Runtime and Triton bring with them; others would need a library from somewhere.
_DOMAINS = frozenset({"", "ai.onnx", "com.microsoft"})
_MAX_DEPTH = 32


def check_onnx(model: bytes, manifest: Manifest) -> None:
    """InvalidInput: NOT_ONNX, EXTERNAL_DATA, UNKNOWN_OPERATORS or GRAPH_CONTRACT, with what is wrong."""
    try:
        proto = onnx.load_model_from_string(model)
    except (DecodeError, ValueError, RecursionError):
        raise InvalidInput("the model is no ONNX file", reason="NOT_ONNX") from None
    if not proto.HasField("graph") or not proto.graph.node:
        raise InvalidInput("the model is an ONNX file without a graph", reason="NOT_ONNX")
    for message in _messages(proto, 0):
        if isinstance(message, onnx.TensorProto) and _is_external(message):
            raise InvalidInput(
                "the model keeps weights in other files: export it with its weights inside",
                reason="EXTERNAL_DATA",
            )
    domains = {opset.domain for opset in proto.opset_import} | {node.domain for node in proto.graph.node}
    if domains - _DOMAINS:
        raise InvalidInput(
            "the model uses operators of an unknown domain: export it with standard operators",
            reason="UNKNOWN_OPERATORS",
        )
    _check_contract(proto.graph, manifest)


def _messages(message: Message, depth: int) -> Iterator[Message]:
    """The message and all messages inside of it."""
    if depth > _MAX_DEPTH:
        raise InvalidInput("the model's graph is nested too deeply", reason="NOT_ONNX")
    yield message
    for descriptor, value in message.ListFields():
        if descriptor.type != descriptor.TYPE_MESSAGE:
            continue
        inner: list[Any] = [value] if isinstance(value, Message) else list(value)
        for each in inner:
            yield from _messages(each, depth + 1)


def _is_external(tensor: onnx.TensorProto) -> bool:
    return tensor.data_location == onnx.TensorProto.EXTERNAL or len(tensor.external_data) > 0


def _check_contract(graph: onnx.GraphProto, manifest: Manifest) -> None:
    weights = {tensor.name for tensor in graph.initializer}
    inputs = [value for value in graph.input if value.name not in weights]
    c, h, w = manifest.input_shape
    _check_value("input", "image", inputs, (c, h, w))
    _check_value("output", "logits", list(graph.output), (manifest.n_classes, h, w))


def _check_value(what: str, name: str, values: list[onnx.ValueInfoProto], expected: tuple[int, int, int]) -> None:
    if [value.name for value in values] != [name]:
        raise _breach(f"its only {what} must be called {name!r}")
    tensor = values[0].type.tensor_type
    if tensor.elem_type != onnx.TensorProto.FLOAT:
        raise _breach(f"{name!r} must be float32")
    dimensions = list(tensor.shape.dim)
    if not tensor.HasField("shape") or len(dimensions) != 4:
        raise _breach(f"{name!r} must have four dimensions")
    if dimensions[0].HasField("dim_value"):
        raise _breach(f"the first dimension of {name!r} must be dynamic")
    for dimension, size in zip(dimensions[1:], expected, strict=True):
        if dimension.HasField("dim_value") and dimension.dim_value != size:
            raise _breach(f"{name!r} must have the shape (N, {', '.join(map(str, expected))})")


def _breach(what: str) -> InvalidInput:
    return InvalidInput(f"the model does not keep the graph's contract: {what}", reason="GRAPH_CONTRACT")
