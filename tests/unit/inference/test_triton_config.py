"""config.pbtxt: its text, and what Triton's own parser reads in it."""

import dataclasses

import pytest
from google.protobuf import text_format
from rekindle.errors import InvalidInput
from rekindle.vocabulary import ModelRole
from rekindle_inference.adapters.triton.config import ModelOptions, render_config
from rekindle_inference.adapters.triton.names import model_name, own_name
from rekindle_inference.domain.records import ProjectId
from rekindle_inference.ports import Package
from rekindle_inference.usecases.packages import serving_as
from rekindle_servicekit.objects import MemoryObjects
from suites.engines import make_package
from tritonclient.grpc import model_config_pb2

DIGEST = "ab" * 32
GPU = ModelOptions(
    max_batch=32, instances=2, kind="gpu", max_queue_delay_us=500, accelerator="tensorrt", precision="fp16"
)
GPU_TEXT = """\
name: "rekindle-p1-sustainer-v3-abababababab"
backend: "onnxruntime"
max_batch_size: 32
input [
  { name: "image" data_type: TYPE_FP32 dims: [ 1, 6, 8 ] }
]
output [
  { name: "logits" data_type: TYPE_FP32 dims: [ 2, 6, 8 ] }
]
version_policy { specific { versions: [ 1 ] } }
instance_group [
  { count: 2 kind: KIND_GPU }
]
dynamic_batching { max_queue_delay_microseconds: 500 }
optimization {
  execution_accelerators {
    gpu_execution_accelerator : [
      {
        name : "tensorrt"
        parameters { key: "precision_mode" value: "FP16" }
        parameters { key: "max_workspace_size_bytes" value: "2147483648" }
      }
    ]
  }
}
parameters { key: "rekindle_package" value { string_value: "abababababababababababababababababababababababababababababababab" } }
parameters { key: "rekindle_memory_bytes" value { string_value: "1000" } }
"""  # noqa: E501 - as it is written


@pytest.fixture
def manifest():
    return make_package(MemoryObjects())[0].manifest


def parsed(text):
    return text_format.Parse(text, model_config_pb2.ModelConfig())


def test_the_text_for_a_gpu(manifest):
    """Two instances on each GPU, TensorRT in half precision, batches gathered for half a millisecond."""
    assert GPU_TEXT == render_config("rekindle-p1-sustainer-v3-abababababab", DIGEST, manifest, GPU)


def test_triton_reads_what_is_meant(manifest):
    """Parsed by the maker's own schema."""
    config = parsed(render_config("m", DIGEST, manifest, GPU))
    group, accelerator = config.instance_group[0], config.optimization.execution_accelerators
    assert ("m", "onnxruntime", 32) == (config.name, config.backend, config.max_batch_size)
    assert [("image", [1, 6, 8])] == [(each.name, list(each.dims)) for each in config.input]
    assert [("logits", [2, 6, 8])] == [(each.name, list(each.dims)) for each in config.output]
    assert {model_config_pb2.TYPE_FP32} == {each.data_type for each in (*config.input, *config.output)}
    assert (2, model_config_pb2.ModelInstanceGroup.KIND_GPU) == (group.count, group.kind)
    assert 500 == config.dynamic_batching.max_queue_delay_microseconds
    assert ["tensorrt"] == [each.name for each in accelerator.gpu_execution_accelerator]
    assert "FP16" == accelerator.gpu_execution_accelerator[0].parameters["precision_mode"]
    assert DIGEST == config.parameters["rekindle_package"].string_value


def test_what_is_left_to_triton_is_not_written(manifest):
    """No instance group by default, no batching where it is switched off, no accelerator unless asked for."""
    config = parsed(render_config("m", DIGEST, manifest, ModelOptions(max_queue_delay_us=None)))
    assert [] == list(config.instance_group)
    assert not config.HasField("dynamic_batching")
    assert not config.HasField("optimization")


def test_models_on_the_processor(manifest):
    """For machines without a GPU."""
    config = parsed(render_config("m", DIGEST, manifest, dataclasses.replace(ModelOptions(), kind="cpu")))
    assert [(1, model_config_pb2.ModelInstanceGroup.KIND_CPU)] == [(g.count, g.kind) for g in config.instance_group]


def test_names_tell_installation_project_role_and_version(manifest):
    """And the package, so that one name never stands for two graphs."""
    package = serving_as(Package(digest=DIGEST, manifest=manifest), ProjectId("p-1"), ModelRole.IGNITER, 7)
    name = model_name("ward2", package)
    assert "ward2-p-1-igniter-v7-abababababab" == name.text
    assert name == own_name("ward2", name.text)
    assert "p-1" == name.project_id


@pytest.mark.parametrize("text", ["ward2-x", "other-p-igniter-v7-abababababab", "ward22-p-igniter-v7-abababababab"])
def test_others_models_are_left_alone(text):
    """A model that this installation did not name is not its to unload."""
    assert own_name("ward2", text) is None


@pytest.mark.parametrize("project", ["../../etc", "a/b", "a..b", "x" * 300, "a b", "ä"])
def test_a_project_cannot_lead_out_of_the_repository(manifest, project):
    """Names are folders and object keys."""
    package = serving_as(Package(digest=DIGEST, manifest=manifest), ProjectId(project), ModelRole.IGNITER, 1)
    with pytest.raises(InvalidInput) as refused:
        model_name("rekindle", package)
    assert "MODEL_NAME" == refused.value.reason
