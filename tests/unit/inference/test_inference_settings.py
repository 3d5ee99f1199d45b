"""The settings of the inference service, and its start."""

import subprocess
import sys

import pytest
from rekindle.errors import InvalidInput
from rekindle_inference.settings import Settings


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
        "import sys, rekindle_inference.domain.receipts, rekindle_inference.domain.manifest, "
        "rekindle_inference.domain.easiness; print({'grpc', 'sqlalchemy', 'onnxruntime'} & set(sys.modules))"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "set()" == run.stdout.strip()
