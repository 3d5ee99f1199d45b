"""Model versions."""

from __future__ import annotations

import hashlib

import pytest
from fake_world import World
from rekindle.errors import VersionConflict
from rekindle.projects import Project


def test_imported_model_arrives_whole(project: Project, world: World) -> None:
    """Manifest and ONNX file arrive, and the version is registered by the package's digest."""
    onnx = bytes(range(256)) * 8192
    model = project.import_model(b"{}", onnx, role="sustainer")
    assert onnx == world.onnx
    assert ("sustainer", hashlib.sha256(b"{}").hexdigest()) == (model.role, model.package_digest)


def test_activation_is_compare_and_set(project: Project) -> None:
    """Activation names the version believed to serve, and fails when another one does."""
    first, second = (project.import_model(b"{}", onnx) for onnx in (b"1", b"2"))
    assert first.activate(expected_current="").active
    assert second.activate(expected_current=first.id).active
    with pytest.raises(VersionConflict):
        first.activate(expected_current="")
    assert second.id == project.model().id
