"""The trainer's part of a project's archive."""

from __future__ import annotations

import hashlib
import io
import json
from pathlib import Path
from typing import Any

import pytest
from rekindle.errors import InvalidInput
from rekindle_servicekit import database
from rekindle_servicekit.archive import write_archive
from rekindle_servicekit.objects import MemoryObjects
from rekindle_servicekit.principal import Principal
from rekindle_servicekit.workers import Cancellation
from rekindle_trainer.state import MIGRATIONS
from rekindle_trainer.state.archive import project_archive

PRINCIPAL = Principal(issuer="loopback", subject="local", display_name="Local user")
RUN: dict[str, Any] = {
    "run_id": "run-1",
    "project_id": "p",
    "spec": "{}",
    "snapshot_digest": "d",
    "state": "succeeded",
    "reason": "",
    "created_by": "me",
    "created_at": "2026-03-01T12:00:00+00:00",
    "attempts": 1,
    "failures": 0,
    "cancel_requested": False,
}


@pytest.mark.parametrize(
    "changes",
    [
        {"spec": "no JSON"},
        {"spec": "[]", "state": "queued"},
        {"result": "{}"},
        {"result": "7"},
        {"result": '{"weights_digest": "d", "packages": 7}'},
        {"spec": "[" * 100_000},
    ],
)
def test_runs_that_nobody_can_read_are_refused(tmp_path: Path, changes: dict[str, Any]) -> None:
    """As a wrong archive, with nothing taken in."""
    engine = database.make_engine(f"sqlite:///{tmp_path / 'trainer.sqlite3'}")
    database.migrate(engine, MIGRATIONS)
    objects = MemoryObjects()
    rows = io.BytesIO(json.dumps({**RUN, **changes}).encode() + b"\n")
    data = b"".join(write_archive("trainer", "p", [("runs", rows)], objects, (), Cancellation()))
    path = tmp_path / "archive.tar"
    path.write_bytes(data)

    with pytest.raises(InvalidInput) as caught:
        project_archive(engine, objects).import_(
            PRINCIPAL, "p", "r", hashlib.sha256(data).hexdigest(), path, Cancellation()
        )

    assert caught.value.reason == "BAD_ARCHIVE"
    assert list(objects.list()) == []
    engine.dispose()
