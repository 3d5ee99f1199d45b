"""Whole runs on synthetic volumes, from the spec to the result."""

import hashlib
import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from rekindle_servicekit.objects import DirectoryObjects, MemoryObjects
from rekindle_trainer.domain.presets import TINY
from rekindle_trainer.domain.spec import BadSpec, parse_spec
from rekindle_trainer.process import __main__ as process
from rekindle_trainer.process.evaluation import onnx_predictor
from rekindle_trainer.process.networks.transunet import TransUNet
from rekindle_trainer.process.recipes import start
from rekindle_trainer.process.run import run
from rekindle_trainer.process.training.checkpoint import store_weights
from rekindle_trainer.process.training.loop import RunStopped

PutSpec = Callable[..., dict[str, Any]]


def mean_dice(cases: list[dict[str, Any]]) -> float:
    return float(np.mean([organ["dice"] for case in cases for organ in case["organs"].values()]))


@pytest.fixture(scope="module")
def igniter(put_spec: PutSpec) -> tuple[MemoryObjects, dict[str, Any], dict[str, Any]]:
    """A store with a finished igniter run, its spec and its result."""
    torch.set_num_threads(1)
    objects = MemoryObjects()
    spec = put_spec(objects, "run-1")
    return objects, spec, run(objects, "run-1", 1)


@pytest.fixture(scope="module")
def sustainer(put_spec: PutSpec) -> tuple[MemoryObjects, dict[str, Any]]:
    """A store with a finished sustainer run, and its result."""
    torch.set_num_threads(1)
    objects = MemoryObjects()
    put_spec(objects, "first", kind="sustainer")
    return objects, run(objects, "first", 1)


def test_an_igniter_learns_the_boxes_and_is_packaged_once_per_modality(
    igniter: tuple[MemoryObjects, dict[str, Any], dict[str, Any]],
) -> None:
    """From 2 + 2 volumes it finds both organs of the held-out case; every object agrees with its digest."""
    objects, spec, result = igniter
    assert ["CT", "MR"] == [package["modality"] for package in result["packages"]]
    assert result == json.loads(objects.get("runs/run-1/1/result.json"))
    assert mean_dice(result["evaluation"]["candidate"]) > 0.6
    assert spec["heldout"][0]["case_id"] == result["evaluation"]["candidate"][0]["case_id"]
    assert ([], []) == (result["evaluation"]["current"], result["training_check"])
    for package in result["packages"]:
        folder = f"packages/{package['package_digest']}"
        manifest, model = objects.get(f"{folder}/manifest.json"), objects.get(f"{folder}/model.onnx")
        contents = json.loads(manifest)
        assert package["package_digest"] == hashlib.sha256(manifest).hexdigest()
        assert contents["model_digest"] == hashlib.sha256(model).hexdigest()
        assert package["modality"] == contents["modality"]
        reference = contents["reference"]
        images = np.random.default_rng(reference["input_seed"]).standard_normal((2, 3, 64, 64), dtype=np.float32)
        logits = onnx_predictor(model)(images).ravel()[:16]
        np.testing.assert_allclose(reference["logits_sample"], logits, atol=1e-4)
        # Relative, so that the engine that scales it by the largest logit does so once.
        assert 1e-3 == reference["tolerance"]
        assert b"run-1" not in manifest
    weights = objects.get(f"weights/{result['weights_digest']}")
    assert result["weights_digest"] == hashlib.sha256(weights).hexdigest()


def test_metrics_tell_phase_progress_and_remaining_time(objects: MemoryObjects, put_spec: PutSpec) -> None:
    """Records are numbered without gaps, and a training record has every field."""
    put_spec(objects, "run-1", kind="sustainer", recipe="paper")
    run(objects, "run-1", 1)
    keys = list(objects.list("runs/run-1/1/metrics/"))
    assert [f"runs/run-1/1/metrics/{n:06d}.json" for n in range(1, len(keys) + 1)] == keys
    records = [json.loads(objects.get(key)) for key in keys]
    assert {"prepare", "corrected", "evaluate"} == {record["phase"] for record in records}
    training = next(record for record in records if record["phase"] == "corrected")
    assert {"phase", "step", "steps", "epoch", "epochs", "loss", "dice", "lr", "eta_seconds"} == set(training)
    assert training["loss"] > 0
    assert training["eta_seconds"] > 0
    assert 4 == training["epochs"]
    assert training["step"] <= training["steps"]


def test_a_sustainer_pretrains_on_the_seed_set_and_its_weights_start_the_next_run(
    sustainer: tuple[MemoryObjects, dict[str, Any]], put_spec: PutSpec
) -> None:
    """Given the weights after the seed phase, another run leaves that phase out and ends in the same weights."""
    objects, first = sustainer
    assert ("seed_set", ["corrected", "seed"]) == (first["started_from"], sorted(first["phase_weights"]))
    assert 2 == len(first["training_check"])
    current = first["packages"][0]["package_digest"]
    put_spec(
        objects,
        "second",
        kind="sustainer",
        initial_weights=first["phase_weights"]["seed"],
        current_package=current,
    )
    second = run(objects, "second", 1)
    assert ("initial_weights", ["corrected"]) == (second["started_from"], sorted(second["phase_weights"]))
    assert first["weights_digest"] == second["weights_digest"]
    manifests = [_manifest(objects, result) for result in (first, second)]
    assert manifests[1]["lineage"].pop("initial_weights_digest") == first["phase_weights"]["seed"]
    assert manifests[0] == manifests[1]
    assert first["evaluation"]["candidate"] == second["evaluation"]["current"]


def _manifest(objects: MemoryObjects, result: dict[str, Any]) -> dict[str, Any]:
    return json.loads(objects.get(f"packages/{result['packages'][0]['package_digest']}/manifest.json"))


def test_stopping_and_resuming_ends_in_the_same_result(
    sustainer: tuple[MemoryObjects, dict[str, Any]], put_spec: PutSpec
) -> None:
    """A second attempt goes on where the first was stopped, and all digests and metrics are equal."""
    objects, whole = sustainer
    put_spec(objects, "parted", kind="sustainer")
    calls = iter(range(1000))
    with pytest.raises(RunStopped):
        run(objects, "parted", 1, lambda: next(calls) > 45)
    assert not objects.exists("runs/parted/1/result.json")
    resumed = run(objects, "parted", 2)
    for key in (
        "weights_digest",
        "packages",
        "snapshot_digest",
        "evaluation",
        "training_check",
        "final_loss",
    ):
        assert whole[key] == resumed[key]


def has_checkpoint(objects: DirectoryObjects, prefix: str) -> bool:
    return any("/checkpoint/" in key and key.endswith("state.json") for key in objects.list(prefix))


def test_the_process_stops_on_sigterm_and_the_next_attempt_finishes(
    tmp_path: Path, put_spec: PutSpec, igniter: tuple[MemoryObjects, dict[str, Any], dict[str, Any]]
) -> None:
    """Exit code 143 after a checkpoint; then 0, with the weights of an uninterrupted run."""
    objects = DirectoryObjects(tmp_path)
    put_spec(objects, "run-1")
    command = [sys.executable, "-m", "rekindle_trainer.process", "--objects", str(tmp_path), "--run", "run-1"]
    command += ["--threads", "1", "--device", "cpu", "--attempt"]
    child = subprocess.Popen([*command, "1"], stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 60
    while not has_checkpoint(objects, "runs/run-1/1/"):
        assert time.monotonic() < deadline
        assert child.poll() is None
        time.sleep(0.05)
    child.send_signal(signal.SIGTERM)
    assert 143 == child.wait(20)
    second = subprocess.run([*command, "2"], stderr=subprocess.DEVNULL, check=False)
    assert 0 == second.returncode
    result = json.loads(objects.get("runs/run-1/2/result.json"))
    assert igniter[2]["weights_digest"] == result["weights_digest"]


def failing(tmp_path: Path, run_id: str) -> tuple[int, dict[str, str]]:
    code = process.main(["--objects", str(tmp_path), "--run", run_id, "--attempt", "1", "--threads", "1"])
    return code, json.loads((tmp_path / "runs" / run_id / "1" / "failure.json").read_text())


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"preset": "huge"}, "UNKNOWN_PRESET"),
        ({"kind": "sustainer", "recipe": "other"}, "UNKNOWN_RECIPE"),
        ({"training": []}, "NO_TRAINING_DATA"),
        ({"modality": "PET"}, "BAD_SPEC"),
        ({"initial_weights": "0" * 64}, "OBJECT_MISSING"),
        (
            {"organs": [{"id": "liver", "label_value": 1}, {"id": "spleen", "label_value": 3}]},
            "UNKNOWN_LABEL_VALUES",
        ),
        ({"surprise": 1}, "BAD_SPEC"),
    ],
)
def test_a_bad_spec_exits_with_2_and_says_why(
    tmp_path: Path, put_spec: PutSpec, changes: dict[str, Any], reason: str
) -> None:
    """The failure is an object beside the attempt, with a reason for programs and a sentence for people."""
    put_spec(DirectoryObjects(tmp_path), "run-1", **changes)
    code, failure = failing(tmp_path, "run-1")
    assert (2, reason) == (code, failure["reason"])
    assert failure["message"]


def test_damaged_pixels_are_refused(objects: MemoryObjects, put_spec: PutSpec) -> None:
    """A canonical object whose bytes are not those of its digest is never trained on."""
    spec = put_spec(objects, "run-1")
    key = f"canonical/{spec['training'][0]['image_digest']}"
    objects.delete(key)
    objects.put(key, b"other bytes")
    with pytest.raises(BadSpec) as caught:
        run(objects, "run-1", 1)
    assert "DIGEST_MISMATCH" == caught.value.reason


def test_held_out_cases_never_train(objects: MemoryObjects, put_spec: PutSpec) -> None:
    """A snapshot that has an image on both sides is refused."""
    spec = put_spec(objects, "run-1", kind="sustainer")
    spec["heldout"] = [{**spec["training"][-1], "case_id": "another name"}]
    with pytest.raises(BadSpec) as caught:
        parse_spec(json.dumps(spec).encode())
    assert "HELDOUT_IN_TRAINING" == caught.value.reason


def test_an_igniter_without_the_targets_modality_says_so(objects: MemoryObjects, put_spec: PutSpec) -> None:
    """An igniter for MR that has only CT to learn from is refused by a reason of its own."""
    spec = put_spec(objects, "run-1", kind="igniter", modality="MR")
    spec["training"] = [example for example in spec["training"] if example["modality"] == "CT"]
    with pytest.raises(BadSpec) as caught:
        parse_spec(json.dumps(spec).encode())
    assert "MODALITY_MISSING" == caught.value.reason


def test_the_snapshot_digest_depends_on_contents_not_on_names_or_order(
    objects: MemoryObjects, put_spec: PutSpec
) -> None:
    """Other case ids and another order give the same digest, another status gives another."""
    spec = put_spec(objects, "run-1")
    original = parse_spec(json.dumps(spec).encode()).snapshot_digest()
    renamed = {**spec, "training": [{**e, "case_id": "x"} for e in reversed(spec["training"])]}
    assert original == parse_spec(json.dumps(renamed).encode()).snapshot_digest()
    spec["training"][0]["organ_statuses"]["liver"] = "not_reviewed"
    assert original != parse_spec(json.dumps(spec).encode()).snapshot_digest()


def test_incompatible_weights_stop_the_papers_recipe_only(objects: MemoryObjects, put_spec: PutSpec) -> None:
    """`paper` refuses weights of another network; `default` makes its own from the seed set instead."""
    digest = store_weights(objects, TransUNet(TINY.transunet, 5), {"network": "transunet"})
    put_spec(objects, "paper", kind="sustainer", recipe="paper", initial_weights=digest)
    put_spec(objects, "default", kind="sustainer", initial_weights=digest)
    with pytest.raises(BadSpec) as caught:
        run(objects, "paper", 1)
    assert "INCOMPATIBLE_WEIGHTS" == caught.value.reason
    spec = parse_spec(objects.get("runs/default/spec.json"))
    beginning = start(spec, TINY, objects)
    assert ("seed_set", ["seed", "corrected"]) == (
        beginning.started_from,
        [phase.name for phase in beginning.phases],
    )


def test_organs_that_were_not_reviewed_are_not_measured(objects: MemoryObjects, put_spec: PutSpec) -> None:
    """A held-out case whose spleen nobody looked at has metrics of the liver only."""
    spec = put_spec(objects, "base", kind="sustainer", recipe="paper")
    held = {**spec["heldout"][0], "organ_statuses": {"liver": "edited", "spleen": "not_reviewed"}}
    put_spec(objects, "run-1", kind="sustainer", recipe="paper", heldout=[held])
    result = run(objects, "run-1", 1)
    assert ["liver"] == list(result["evaluation"]["candidate"][0]["organs"])


def test_a_policy_that_keeps_all_components_reaches_the_package(objects: MemoryObjects, put_spec: PutSpec) -> None:
    """The manifest tells serving and evaluation alike whether only the largest component stays."""
    put_spec(objects, "all-components", kind="sustainer", recipe="paper", largest_component=False)
    digest = run(objects, "all-components", 1)["packages"][0]["package_digest"]
    manifest = json.loads(objects.get(f"packages/{digest}/manifest.json"))
    assert {"largest_component": False} == manifest["postprocessing"]
