"""The settings of the inference service, and its start."""

import subprocess
import sys

import pytest
from rekindle.errors import InvalidInput
from rekindle_inference.adapters.engines import open_engine
from rekindle_inference.adapters.triton.open import is_loopback
from rekindle_inference.settings import Settings
from rekindle_servicekit.objects import MemoryObjects


def test_misspelt_variables_are_refused(monkeypatch):
    """With the nearest name."""
    monkeypatch.setenv("REKINDLE_INFERENCE_ENGINE_THREDS", "2")
    with pytest.raises(InvalidInput, match="REKINDLE_INFERENCE_ENGINE_THREADS"):
        Settings.load()


def test_help_prints_the_settings():
    """Every setting has a variable, a default and a meaning."""
    command = [sys.executable, "-m", "rekindle_inference", "--help"]
    text = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    lines = [line for line in text.splitlines() if line.startswith("REKINDLE_INFERENCE_")]
    assert len(Settings.model_fields) == len(lines)
    assert all(len(line.split()) >= 3 for line in lines)


def test_the_domain_needs_no_transport_and_no_database():
    """Importing it loads neither grpc nor SQLAlchemy."""
    code = (
        "import sys, rekindle_inference.domain.receipts, rekindle_imaging.package, "
        "rekindle_inference.domain.easiness; print({'grpc', 'sqlalchemy', 'onnxruntime'} & set(sys.modules))"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "set()" == run.stdout.strip()


def test_a_missing_extra_is_named(monkeypatch, tmp_path):
    """Triton by settings without the library that reaches it: what to install is said."""
    monkeypatch.setitem(sys.modules, "rekindle_inference.adapters.triton.open", None)
    settings = Settings(triton_address="127.0.0.1:8001", objects_directory=tmp_path)
    with pytest.raises(InvalidInput, match=r"rekindle-inference\[triton\]"):
        open_engine(settings, MemoryObjects(), MemoryObjects())


def test_the_engine_is_chosen_by_an_address():
    """Triton need not be there yet when the service starts; without an address the engine is in the process."""
    embedded = open_engine(Settings(), MemoryObjects(), MemoryObjects())
    settings = Settings(triton_address="127.0.0.1:1", engine_batch=8, triton_in_flight=3)
    triton = open_engine(settings, MemoryObjects(), MemoryObjects())
    assert ["OnnxRuntimeEngine", "TritonEngine"] == [type(engine).__name__ for engine in (embedded, triton)]
    assert 24 == triton.batch_size
    triton.close()


def test_shared_memory_is_for_this_machine_unless_told():
    """No name is looked up to find out."""
    assert [True, True, True, False, False] == [
        is_loopback(address) for address in ("127.0.0.1:1", "[::1]:1", "localhost:1", "triton:8001", "10.0.0.1:1")
    ]
