"""Model versions over gRPC: what is registered works, and the pointer moves by compare-and-set."""

import hashlib
import json
import uuid

import grpc
import pytest
from onnx import TensorProto, external_data_helper, helper, numpy_helper
from refusals import refused_with
from rekindle.api.common.v1 import common_pb2 as common
from rekindle.api.inference.v1 import inference_pb2 as inference
from rekindle.errors import DependencyUnavailable, InvalidInput
from rekindle_inference.adapters.onnxruntime import OnnxRuntimeEngine
from rekindle_servicekit.objects import DirectoryObjects

SUSTAINER = inference.MODEL_ROLE_SUSTAINER


def error_of(call):
    """The (code, reason) of a call that must fail."""
    code, error = refused_with(call)
    return code, error.reason


def test_registers_a_package_with_its_lineage(running, package):
    """The version tells package, organs, modality, role and lineage, and is not active by itself."""
    digest = running.upload_package(*package)
    model = running.register(digest)
    asked = inference.GetModelRequest(
        project_id="project-a", model=inference.ModelSelector(model_version_id=model.model_version_id)
    )
    assert hashlib.sha256(package[0]).hexdigest() == digest == model.package_digest
    assert [("liver", 6), ("spleen", 1)] == [(o.id, o.label_value) for o in model.organs]
    assert (common.MODALITY_CT, inference.MODEL_ROLE_IGNITER, 1) == (model.modality, model.role, model.version)
    assert ("ab" * 32, "cd" * 32) == (model.weights_digest, model.snapshot_digest)
    assert model == running.inference.GetModel(asked, timeout=10).model
    assert not model.active


def test_the_same_package_is_registered_once_per_role(running, package):
    """Another request id changes nothing; another role is another version."""
    digest = running.upload_package(*package)
    first, again = running.register(digest), running.register(digest)
    other = running.register(digest, role=SUSTAINER)
    assert first == again
    assert (2, SUSTAINER) == (other.version, other.role)


def test_versions_are_numbered_within_the_project(running, package):
    """Each project begins at one, and sees only its own."""
    digest = running.upload_package(*package)
    running.register(digest)
    elsewhere = running.register(digest, project_id="project-b")
    assert 1 == elsewhere.version
    asked = inference.GetModelRequest(
        project_id="project-a", model=inference.ModelSelector(model_version_id=elsewhere.model_version_id)
    )
    expected = (grpc.StatusCode.NOT_FOUND, "MODEL_NOT_FOUND")
    assert expected == error_of(lambda: running.inference.GetModel(asked, timeout=10))


def test_lists_the_newest_first_in_pages(running, package, make_manifest, phantom):
    """Pages follow each other without gaps."""
    _, model = package
    for number in range(3):
        lineage = {"weights_digest": str(number)}
        manifest = make_manifest(model, phantom.thresholds(), lineage=lineage)
        running.register(running.upload_package(manifest, model))
    request = inference.ListModelsRequest(project_id="project-a", page_size=2)
    first = running.inference.ListModels(request, timeout=10)
    request.page_token = first.next_page_token
    second = running.inference.ListModels(request, timeout=10)
    assert [[3, 2], [1]] == [[m.version for m in page.models] for page in (first, second)]
    assert "" == second.next_page_token


def test_the_pointer_moves_only_from_where_the_caller_believes_it(running, package):
    """Compare and set: a stale belief is ABORTED and changes nothing; rollback is the same call."""
    digest = running.upload_package(*package)
    one, two = running.register(digest), running.register(digest, role=SUSTAINER)
    assert running.activate(one).model.active
    assert (grpc.StatusCode.ABORTED, "VERSION_CONFLICT") == error_of(lambda: running.activate(two))
    moved = running.activate(two, expected=one.model_version_id)
    assert (one.model_version_id, True) == (moved.previous_model_version_id, moved.model.active)
    back = running.activate(one, expected=two.model_version_id)
    asked = inference.GetModelRequest(project_id="project-a", model=inference.ModelSelector(active=True))
    assert back.model == running.inference.GetModel(asked, timeout=10).model


def test_activating_again_under_the_same_request_id_is_answered_the_same(running, package):
    """A retry of a move that was made is no conflict."""
    model = running.register(running.upload_package(*package))
    request = inference.ActivateModelRequest(
        request_id=uuid.uuid4().hex, project_id="project-a", model_version_id=model.model_version_id
    )
    answers = [running.inference.ActivateModel(request, timeout=10) for _ in range(2)]
    assert answers[0] == answers[1]


def test_refuses_a_package_whose_model_is_another(running, package):
    """The chunks must have the digest that the manifest names."""
    manifest, model = package
    call = lambda: running.upload_package(manifest, model + b"\0")  # noqa: E731
    assert (grpc.StatusCode.DATA_LOSS, "DIGEST_MISMATCH") == error_of(call)


def test_refuses_a_package_that_was_damaged_in_the_store(running, package):
    """What lies in the store is checked again before it is registered."""
    digest = running.upload_package(*package)
    path = running.objects_directory / "packages" / digest / "model.onnx"
    path.chmod(0o600)
    path.write_bytes(path.read_bytes()[:-1] + b"\1")
    assert (grpc.StatusCode.DATA_LOSS, "DIGEST_MISMATCH") == error_of(lambda: running.register(digest))


def test_refuses_a_package_that_is_not_there(running):
    """Registering comes after uploading, or after the trainer has stored it."""
    assert (grpc.StatusCode.NOT_FOUND, "PACKAGE_NOT_FOUND") == error_of(lambda: running.register("0" * 64))


@pytest.mark.parametrize(
    "organs",
    [
        [common.Organ(id="spleen", label_value=1), common.Organ(id="liver", label_value=6)],
        [common.Organ(id="liver", label_value=6)],
        [common.Organ(id="liver", label_value=5), common.Organ(id="spleen", label_value=1)],
    ],
)
def test_refuses_other_organs_than_the_package_predicts(running, package, organs):
    """Order, number and label values must be the project's; also where the package is registered already."""
    digest = running.upload_package(*package)
    expected = (grpc.StatusCode.INVALID_ARGUMENT, "ORGANS_MISMATCH")
    assert expected == error_of(lambda: running.register(digest, organs=organs))
    running.register(digest)
    assert expected == error_of(lambda: running.register(digest, organs=organs))


@pytest.mark.parametrize(
    "change",
    [
        {"format": 2},
        {"modality": "PET"},
        {"surprise": 1},
        {"memory_bytes": -1},
        {"preprocessing": {"spacing_mm": [1, 1]}},
        {"classes": [{"id": "liver", "label_value": 1}, {"id": "spleen", "label_value": 1}]},
        {"reference": {"input_seed": 1, "batch": 10**9, "logits_sample": [0.0], "tolerance": 1e-3}},
        {"reference": {"input_seed": 1, "batch": 1, "logits_sample": [float("nan")], "tolerance": 1e-3}},
    ],
)
def test_refuses_manifests_that_say_something_else(running, package, make_manifest, phantom, change):
    """A manifest is foreign too; nothing of the package is stored."""
    _, model = package
    manifest = make_manifest(model, phantom.thresholds(), **change)
    expected = (grpc.StatusCode.INVALID_ARGUMENT, "BAD_MANIFEST")
    assert expected == error_of(lambda: running.upload_package(manifest, model))
    assert not (running.objects_directory / "packages").exists()


def test_refuses_a_model_that_computes_something_else(running, package, make_manifest, phantom):
    """The reference batch must give the promised logits."""
    manifest, model = package
    reference = json.loads(manifest)["reference"]
    reference["logits_sample"][3] += 1.0
    digest = running.upload_package(make_manifest(model, phantom.thresholds(), reference=reference), model)
    assert (grpc.StatusCode.INVALID_ARGUMENT, "SMOKE_TEST") == error_of(lambda: running.register(digest))


def test_the_tolerance_is_taken_once(start, settings, package, make_manifest, phantom):
    """Relative to the largest logit: here about 60, so that 0.001 lets 0.04 pass and not 0.1."""
    running = start()
    manifest, model = package
    reference = json.loads(manifest)["reference"]
    expected = reference["logits_sample"][3]
    for difference, passes in ((0.04, True), (0.1, False)):
        reference["logits_sample"][3] = expected + difference
        digest = running.upload_package(make_manifest(model, phantom.thresholds(), reference=reference), model)
        if passes:
            running.register(digest)
        else:
            assert "SMOKE_TEST" == error_of(lambda digest=digest: running.register(digest))[1]


class WatchedEngine(OnnxRuntimeEngine):
    """Notes what it is asked for; refuses to load while told to."""

    def __init__(self, objects):
        super().__init__(objects)
        self.checked, self.kept, self.refusal = [], [], None

    def check(self, package, model):
        self.checked.append((package.serving.role, package.serving.version))
        super().check(package, model)

    def load(self, package):
        if self.refusal is not None:
            raise self.refusal
        super().load(package)

    def keep(self, project_id, packages):
        self.kept.append((project_id, [package.serving.version for package in packages]))


def test_a_version_that_cannot_be_made_ready_is_not_activated(start, settings, package):
    """What served goes on serving, and the same request works once the engine does."""
    engine = WatchedEngine(DirectoryObjects(settings.objects_directory))
    running = start(engine)
    digest = running.upload_package(*package)
    one, two = running.register(digest), running.register(digest, role=SUSTAINER)
    running.activate(one)
    for refusal, code in (
        (InvalidInput("no", reason="MODEL_NOT_LOADABLE"), grpc.StatusCode.INVALID_ARGUMENT),
        (DependencyUnavailable("away"), grpc.StatusCode.UNAVAILABLE),
    ):
        engine.refusal = refusal
        assert code == error_of(lambda: running.activate(two, expected=one.model_version_id))[0]
        active = inference.GetModelRequest(project_id="project-a", model=inference.ModelSelector(active=True))
        assert one.model_version_id == running.inference.GetModel(active, timeout=10).model.model_version_id
    engine.refusal = None
    assert running.activate(two, expected=one.model_version_id).model.active


def test_the_engine_keeps_the_active_version_and_the_one_before(start, settings, package):
    """For a rollback; each version is proven under its own number."""
    engine = WatchedEngine(DirectoryObjects(settings.objects_directory))
    running = start(engine)
    digest = running.upload_package(*package)
    one, two = running.register(digest), running.register(digest, role=SUSTAINER)
    running.activate(one)
    running.activate(two, expected=one.model_version_id)
    running.activate(one, expected=two.model_version_id)
    assert [("igniter", 1), ("sustainer", 2)] == engine.checked
    assert [("project-a", [1]), ("project-a", [2, 1]), ("project-a", [1, 2])] == engine.kept


def test_a_refused_package_takes_no_number(start, settings, package, make_onnx, make_manifest, phantom):
    """Versions are numbered without gaps."""
    running = start()
    proto = make_onnx(phantom.thresholds())
    no_such_operator(proto)
    broken = proto.SerializeToString()
    with pytest.raises(grpc.RpcError):
        running.register(running.upload_package(make_manifest(broken, phantom.thresholds()), broken))
    assert 1 == running.register(running.upload_package(*package)).version


def external_weights(model):
    tensor = model.graph.initializer[0]
    external_data_helper.set_external_data(tensor, location="../../../etc/passwd")
    tensor.ClearField("raw_data")


def external_constant(model):
    tensor = numpy_helper.from_array(numpy_helper.to_array(model.graph.initializer[0]), "weight")
    external_data_helper.set_external_data(tensor, location="weights.bin")
    del model.graph.initializer[0]
    model.graph.node.insert(0, helper.make_node("Constant", [], ["weight"], value=tensor))


def other_input_name(model):
    model.graph.input[0].name = "x"
    model.graph.node[0].input[0] = "x"


def fixed_batch(model):
    model.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 4


def other_rank(model):
    del model.graph.output[0].type.tensor_type.shape.dim[3]


def other_type(model):
    model.graph.input[0].type.tensor_type.elem_type = TensorProto.DOUBLE


def foreign_operators(model):
    model.opset_import.append(helper.make_opsetid("com.example", 1))


def no_such_operator(model):
    model.graph.node[0].op_type = "Confabulate"


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (external_weights, "EXTERNAL_DATA"),
        (external_constant, "EXTERNAL_DATA"),
        (other_input_name, "GRAPH_CONTRACT"),
        (fixed_batch, "GRAPH_CONTRACT"),
        (other_rank, "GRAPH_CONTRACT"),
        (other_type, "GRAPH_CONTRACT"),
        (foreign_operators, "UNKNOWN_OPERATORS"),
        (no_such_operator, "MODEL_NOT_LOADABLE"),
    ],
)
def test_refuses_models_that_cannot_be_served(running, make_onnx, make_manifest, phantom, spoil, reason):
    """Each has its reason; nothing becomes a version."""
    proto = make_onnx(phantom.thresholds())
    spoil(proto)
    model = proto.SerializeToString()
    digest = running.upload_package(make_manifest(model, phantom.thresholds()), model)
    assert (grpc.StatusCode.INVALID_ARGUMENT, reason) == error_of(lambda: running.register(digest))
    asked = inference.ListModelsRequest(project_id="project-a")
    assert [] == list(running.inference.ListModels(asked, timeout=10).models)


def test_refuses_bytes_that_are_no_model(running, make_manifest, phantom):
    """A manifest may name any bytes; they must be ONNX."""
    model = b"\x80\x04 not a model" * 20
    digest = running.upload_package(make_manifest(model, phantom.thresholds()), model)
    assert (grpc.StatusCode.INVALID_ARGUMENT, "NOT_ONNX") == error_of(lambda: running.register(digest))
