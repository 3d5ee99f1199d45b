"""Triton's `onnxruntime` backend on a machine without Triton's own: ONNX Runtime from a Python backend.

Put beside the Python backend's files as `backends/onnxruntime/model.py`, it serves the very repository that Triton's
own ONNX Runtime backend serves: `<model>/1/model.onnx` and `config.pbtxt`. One thread and a fixed order of operators,
so that equal input gives equal bits, as in the embedded engine.
"""

import json
import os
from pathlib import Path

import numpy as np
import onnxruntime
import triton_python_backend_utils as pb_utils  # pyright: ignore  # brought by Triton


class TritonPythonModel:
    """One model instance."""

    def initialize(self, args):
        config = json.loads(args["model_config"])
        self.outputs = [output["name"] for output in config["output"]]
        self.inputs = [each["name"] for each in config["input"]]
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = int(os.environ.get("REKINDLE_TRITON_THREADS", "1"))
        options.inter_op_num_threads = 1
        options.execution_mode = onnxruntime.ExecutionMode.ORT_SEQUENTIAL
        options.use_deterministic_compute = True
        options.log_severity_level = 4
        path = str(Path(args["model_repository"], args["model_version"], "model.onnx"))
        self.session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])

    def execute(self, requests):
        return [self._answer(request) for request in requests]

    def _answer(self, request):
        try:
            given = {name: pb_utils.get_input_tensor_by_name(request, name).as_numpy() for name in self.inputs}
            arrays = self.session.run(self.outputs, given)
        except Exception as error:
            return pb_utils.InferenceResponse(error=pb_utils.TritonError(str(error)))
        tensors = [pb_utils.Tensor(name, np.asarray(array)) for name, array in zip(self.outputs, arrays)]  # noqa: B905
        return pb_utils.InferenceResponse(output_tensors=tensors)
