"""Object keys: the layout that stores in use have. Literals on purpose: a changed key loses what was stored."""

from __future__ import annotations

import pytest
from rekindle_servicekit import layout
from rekindle_servicekit.layout import AttemptKeys, PackageKeys, RunKeys, UploadKeys

_D = "d" * 64


@pytest.mark.parametrize(
    ("key", "expected"),
    [
        (layout.original(_D), f"volumes/{_D}"),
        (layout.canonical(_D), f"canonical/{_D}"),
        (layout.weights(_D), f"weights/{_D}"),
        (PackageKeys(_D).manifest, f"packages/{_D}/manifest.json"),
        (PackageKeys(_D).model, f"packages/{_D}/model.onnx"),
        (UploadKeys("u1").whole, "uploads/u1/whole"),
        (UploadKeys("u1").part(1048576, "ab" * 32), "uploads/u1/000001048576-abababababababab"),
        (RunKeys("r1").spec, "runs/r1/spec.json"),
        (RunKeys("r1").attempt(2).result, "runs/r1/2/result.json"),
        (RunKeys("r1").attempt(2).failure, "runs/r1/2/failure.json"),
        (RunKeys("r1").attempt(2).metric(7), "runs/r1/2/metrics/000007.json"),
        (RunKeys("r1").attempt(2).checkpoint(30).state, "runs/r1/2/checkpoint/00000030/state.json"),
        (RunKeys("r1").attempt(2).checkpoint(30).weights, "runs/r1/2/checkpoint/00000030/weights.safetensors"),
    ],
)
def test_keys(key: str, expected: str) -> None:
    """Every kind of object lies where earlier releases have put it."""
    assert expected == key


def test_keys_lie_below_their_folders() -> None:
    """Listing a folder finds what belongs to it."""
    attempt = AttemptKeys("r1", 2)
    assert attempt.metric(1).startswith(attempt.metrics)
    assert attempt.checkpoint(3).state.startswith(attempt.checkpoints)
    assert attempt.folder.startswith(RunKeys("r1").folder)
    assert RunKeys("r1").folder.startswith(layout.RUNS)
    assert UploadKeys("u").whole.startswith(UploadKeys("u").folder)


def test_checkpoints_are_recognised() -> None:
    """A key tells the attempt whose checkpoint it is, a state its step too; other keys tell nothing."""
    checkpoint = AttemptKeys("r1", 12).checkpoint(30)
    assert 12 == layout.checkpoint_attempt(checkpoint.weights)
    assert (30, 12) == layout.checkpoint_state(checkpoint.state)
    assert layout.checkpoint_state(checkpoint.weights) is None
    assert layout.checkpoint_attempt(AttemptKeys("r1", 12).result) is None


def test_run_of_a_key() -> None:
    """An object below the runs tells whose it is."""
    assert "r1" == layout.run_id_of(AttemptKeys("r1", 12).result)
