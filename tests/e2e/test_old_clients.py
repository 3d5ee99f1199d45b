"""The clients of kept versions of the API work with the services of today."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message
from phantom import Phantom, manifest_for, threshold_onnx
from rekindle.api.inference.v1 import inference_pb2, volumes_pb2
from rekindle.api.scheduler.v1 import scheduler_pb2
from rekindle.api.trainer.v1 import trainer_pb2
from rekindle_local.stack import Stack, StackOptions

ROOT = Path(__file__).parents[2]
KEPT = sorted(folder.name for folder in (ROOT / "compat").iterdir())
UNKNOWN = 99


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A phantom with its mask, two cases, and a model that segments them."""
    folder, phantom = tmp_path_factory.mktemp("files"), Phantom()
    phantom.file(folder).rename(folder / "image.nii.gz")
    phantom.file(folder, "mask").rename(folder / "mask.nii.gz")
    for index in range(2):
        shifted = np.roll(phantom.image, index + 1, axis=1)
        phantom.file(folder, voxels=shifted).rename(folder / f"case{index}.nii.gz")
    model = threshold_onnx(phantom.thresholds()).SerializeToString()
    (folder / "model.onnx").write_bytes(model)
    (folder / "manifest.json").write_bytes(manifest_for(model, phantom.thresholds()))
    return folder


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """The services of today, as processes."""
    with Stack(StackOptions(state=tmp_path_factory.mktemp("state"), port=0)) as running:
        yield running


@pytest.mark.parametrize("version", KEPT)
def test_an_old_client_labels_a_case(version: str, stack: Stack, files: Path) -> None:
    """Create, upload, register, import a model, lease, submit, segment and list, all with the kept client."""
    addresses = [stack.addresses[name] for name in ("scheduler", "inference", "trainer")]

    did = old_client(version, "work", *addresses, files)

    assert did["submissions"] == [True]
    assert did["states"] == ["labelled", "ready"]
    assert (did["cases"], did["serving"], did["project"]) == (2, [True], "kept")
    assert did["image"] > 0
    assert did["segmented"] > 0


@pytest.mark.parametrize("version", KEPT)
def test_an_old_client_reads_words_that_it_does_not_know(version: str, future: str) -> None:
    """States and kinds of a newer service are "unknown-99" to an old client, and nothing fails."""
    words = old_client(version, "read", future)

    del words["client"]
    assert {name: str(word).lower() for name, word in words.items()} == dict.fromkeys(words, f"unknown-{UNKNOWN}")


def old_client(version: str, *arguments: object) -> dict[str, Any]:
    """Runs the program on the kept client, and on no other."""
    archive = ROOT / "compat" / version / "sdk.zip"
    done = subprocess.run(
        [sys.executable, "-W", "error", ROOT / "tests/support/old_client.py", *map(str, arguments)],
        env={**os.environ, "PYTHONPATH": str(archive)},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    answer = json.loads(done.stdout)
    assert answer["client"].startswith(str(archive))
    return answer


@pytest.fixture
def future() -> Iterator[str]:
    """A service whose every enum has a value that nobody knows yet."""
    server = grpc.server(ThreadPoolExecutor(4))
    for module in (scheduler_pb2, inference_pb2, volumes_pb2, trainer_pb2):
        for service in module.DESCRIPTOR.services_by_name.values():
            methods = {method.name: _answering(method) for method in service.methods if not method.client_streaming}
            server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service.full_name, methods),))
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    yield f"127.0.0.1:{port}"
    server.stop(None).wait()


def _answering(method: Any) -> grpc.RpcMethodHandler:
    answer = _filled(method.output_type._concrete_class(), depth=0)
    make = grpc.unary_stream_rpc_method_handler if method.server_streaming else grpc.unary_unary_rpc_method_handler
    return make(
        lambda _request, _context: iter([answer]) if method.server_streaming else answer,
        request_deserializer=method.input_type._concrete_class.FromString,
        response_serializer=lambda message: message.SerializeToString(),
    )


def _filled(message: Message, depth: int) -> Message:
    """`message` with unknown enums everywhere, lists with one entry, no further page."""
    for field in message.DESCRIPTOR.fields:
        if field.containing_oneof is not None and message.WhichOneof(field.containing_oneof.name):
            continue
        if field.type == FieldDescriptor.TYPE_ENUM:
            value = [UNKNOWN] if field.is_repeated else UNKNOWN
            getattr(message, field.name).extend(value) if field.is_repeated else setattr(message, field.name, value)
        elif field.type == FieldDescriptor.TYPE_MESSAGE and depth < 6 and not field.message_type.GetOptions().map_entry:
            target = getattr(message, field.name).add() if field.is_repeated else getattr(message, field.name)
            if not field.is_repeated:
                target.SetInParent()
            _filled(target, depth + 1)
        elif field.type == FieldDescriptor.TYPE_STRING and not field.is_repeated and field.name != "next_page_token":
            setattr(message, field.name, "x")
    return message
