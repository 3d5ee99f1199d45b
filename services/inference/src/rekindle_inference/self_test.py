"""One label through an installation, from upload to ledger: ``python -m rekindle_inference.self_test``.

It makes a project of its own with one synthetic case and a model that is one threshold, so it needs no GPU and no
data, and touches nobody's work. The label waits for a review that nobody gives: nothing is trained on it.
Addresses come from REKINDLE_ADDRESS, _INFERENCE and _TRAINER, credentials from REKINDLE_CA, _TOKEN_FILE and so on, as
for the command line.
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import onnx
import SimpleITK as sitk
from onnx import TensorProto, helper, numpy_helper
from rekindle.client import DEFAULT_ADDRESS, Client
from rekindle.config import HeldOut, Organ, Policy
from rekindle.errors import RekindleError

#: Rows and columns of the case and of the model's grid.
SIDE = 32
_SLICES = 8
_WAIT_S = 300.0


def main() -> int:
    """0 where one label made its way; 1 with words where it did not."""
    started = time.monotonic()
    try:
        with _connect() as client:
            label_one(client)
    except RekindleError as error:
        print(f"self-test failed: {error.reason}: {error.message}", file=sys.stderr)
        return 1
    print(f"self-test passed: one case was predicted, leased and labelled in {time.monotonic() - started:.1f} s")
    return 0


def _connect() -> Client:
    return Client.connect(
        os.environ.get("REKINDLE_ADDRESS", DEFAULT_ADDRESS),
        inference=os.environ.get("REKINDLE_INFERENCE"),
        trainer=os.environ.get("REKINDLE_TRAINER"),
    )


def label_one(client: Client) -> str:
    """The id of the project that holds the label. Any error of the client."""
    organ = Organ("ball", 1)
    policy = Policy(sizes=(1,), held_out=HeldOut(number=0), review_required=True)
    project = client.create_project("Self-test", [organ], policy=policy)
    manifest, graph = make_package(organ)
    igniter = project.import_model(manifest, graph)
    with tempfile.TemporaryDirectory() as folder:
        image = Path(folder, "ball.nii.gz")
        sitk.WriteImage(make_image(), str(image))
        project.add_case(image)
    project.close_registration()
    project.start(igniter=igniter)
    lease = project.lease_next(wait_s=_WAIT_S)
    if lease is None:
        raise RekindleError("no case was handed out", reason="NO_CASE")
    with lease:
        coarse = lease.coarse_label()
        if coarse is None:
            raise RekindleError("the case has no coarse label", reason="NO_COARSE_LABEL")
        lease.submit(coarse.data, {organ.id: "accepted"})
    return project.id


def make_image() -> sitk.Image:
    """A ball of 100 HU in air, (slices, rows, columns) = (8, 32, 32)."""
    k, j, i = np.ogrid[:_SLICES, :SIDE, :SIDE]
    ball = (i - SIDE / 2) ** 2 + (j - SIDE / 2) ** 2 + 9 * (k - _SLICES / 2) ** 2 < (SIDE / 4) ** 2
    image = sitk.GetImageFromArray(np.where(ball, 100, -1000).astype(np.int16))
    image.SetSpacing((3.0, 3.0, 9.0))
    return image


def make_package(organ: Organ) -> tuple[bytes, bytes]:
    """Manifest and graph of a model that calls an organ whatever is brighter than the middle of its window."""
    weight = np.asarray([[0.0], [8.0]], np.float32).reshape(2, 1, 1, 1)
    graph = helper.make_graph(
        [helper.make_node("Conv", ["image", "weight"], ["logits"])],
        "threshold",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["N", 1, SIDE, SIDE])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["N", 2, SIDE, SIDE])],
        [numpy_helper.from_array(weight, "weight")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    onnx.checker.check_model(model)
    data = model.SerializeToString()
    return _manifest(organ, data, weight), data


def _manifest(organ: Organ, model: bytes, weight: np.ndarray) -> bytes:
    images = np.random.default_rng(7).standard_normal((2, 1, SIDE, SIDE), dtype=np.float32)
    logits = images * weight[:, 0, 0, 0].reshape(1, 2, 1, 1)
    fields = {
        "format": 1,
        "network": "external",
        "classes": [{"id": organ.id, "label_value": organ.label_value}],
        "modality": "CT",
        "preprocessing": {
            "orientation": "LPS",
            "spacing_mm": [3.0, 3.0],
            "slice_spacing_mm": None,
            "size": [SIDE, SIDE],
            "crop": "none",
            "window": {"kind": "fixed", "low": -200.0, "high": 250.0},
            "normalization": "zscore",
            "channels": 1,
        },
        "opset": 18,
        "model_digest": hashlib.sha256(model).hexdigest(),
        "memory_bytes": 1_000_000,
        "reference": {
            "input_seed": 7,
            "batch": 2,
            "logits_sample": [float(value) for value in logits.ravel()[:16]],
            "tolerance": 1e-3,
        },
        "lineage": {"weights_digest": "0" * 64, "snapshot_digest": "0" * 64},
        "postprocessing": {"largest_component": True},
    }
    return json.dumps(fields, sort_keys=True, separators=(",", ":")).encode()


if __name__ == "__main__":
    sys.exit(main())
