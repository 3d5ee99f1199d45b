"""The command that brings a service's schema up to date, as a step of a deployment."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import sqlalchemy as sa


def _run(service: str, *arguments: str, **settings: str) -> subprocess.CompletedProcess[str]:
    environment = {key: value for key, value in os.environ.items() if not key.startswith("REKINDLE_")}
    environment |= {f"REKINDLE_{service.upper()}_{name}": value for name, value in settings.items()}
    command = [sys.executable, "-m", f"rekindle_{service}", *arguments]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60)


@pytest.mark.parametrize("service", ["scheduler", "inference", "trainer"])
def test_migrate_makes_the_schema_and_ends(service: str, tmp_path: Path) -> None:
    """Twice in a row, and the tables are there; without it a service that may not migrate refuses to start."""
    url = f"sqlite:///{tmp_path / 'state.sqlite'}"
    settings = {"DATABASE_URL": url, "MIGRATE_ON_START": "false", "ADDRESS": "127.0.0.1:0"}
    refused = _run(service, **settings)
    assert 0 != refused.returncode
    assert "migrate" in refused.stderr
    for _ in range(2):
        done = _run(service, "migrate", DATABASE_URL=url)
        assert 0 == done.returncode, done.stderr
    assert "requests" in sa.inspect(sa.create_engine(url)).get_table_names()


def test_an_unknown_command_is_refused_in_words(tmp_path: Path) -> None:
    """A misspelt command starts nothing."""
    refused = _run("scheduler", "migrat", DATABASE_URL=f"sqlite:///{tmp_path / 's'}")
    assert 2 == refused.returncode
    assert "migrate" in refused.stderr
