"""What the services on one machine are told of databases and object store."""

from __future__ import annotations

from pathlib import Path

import pytest
from rekindle_local.stack import Stack, StackOptions

POSTGRESQL = "postgresql://rekindle@db.example/rekindle"


def environment(state: Path, service: str) -> dict[str, str]:
    return Stack(StackOptions(state=state, port=0))._environment(service, state / "port.json")


def test_everything_is_below_the_state_folder_by_default(tmp_path: Path) -> None:
    """A SQLite file and a directory."""
    told = environment(tmp_path, "inference")
    assert f"sqlite:///{tmp_path / 'inference.sqlite3'}" == told["REKINDLE_INFERENCE_DATABASE_URL"]
    assert str(tmp_path / "objects") == told["REKINDLE_INFERENCE_OBJECTS_DIRECTORY"]


@pytest.mark.parametrize("suffix", ["", "_FILE"])
def test_databases_and_store_of_the_environment_are_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, suffix: str
) -> None:
    """As `make up` is told: the variables of the services themselves, the value or the file that holds it."""
    monkeypatch.setenv(f"REKINDLE_TRAINER_DATABASE_URL{suffix}", POSTGRESQL)
    monkeypatch.setenv("REKINDLE_TRAINER_OBJECTS_URL", "s3://bucket")
    told = environment(tmp_path, "trainer")
    database = {name: value for name, value in told.items() if name.startswith("REKINDLE_TRAINER_DATABASE_URL")}
    assert {f"REKINDLE_TRAINER_DATABASE_URL{suffix}": POSTGRESQL} == database
    assert "s3://bucket" == told["REKINDLE_TRAINER_OBJECTS_URL"]
