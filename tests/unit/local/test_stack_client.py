"""The stack's own client."""

from __future__ import annotations

from pathlib import Path

import pytest
from rekindle_local.stack import SERVICES, Stack, StackOptions


def test_environment_of_other_services_is_not_meant(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who works with services elsewhere, over TLS, can still run a stack of their own beside it."""
    monkeypatch.setenv("REKINDLE_CA", str(tmp_path / "absent.pem"))
    monkeypatch.setenv("REKINDLE_TOKEN_FILE", str(tmp_path / "absent"))
    stack = Stack(StackOptions(state=tmp_path))
    stack._addresses.update(dict.fromkeys(SERVICES, "127.0.0.1:1"))
    stack.client().close()
