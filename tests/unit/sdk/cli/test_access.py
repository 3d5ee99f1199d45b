"""`rekindle token` and the options that say who calls."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from fake_world import Command
from rekindle.cli.failures import exit_code
from rekindle.errors import PermissionDenied, Unauthenticated
from rekindle_servicekit.callers import read_callers


def test_token_is_printed_once_with_its_line(command: Command, tmp_path: Path) -> None:
    """What the command prints is a token and a line by which the services know it."""
    made = command("token", "create", "ann", "--role", "annotator", "--role", "reviewer", "--name", "Ann", "--days", 30)
    token, line = made.stdout.splitlines()
    (tmp_path / "callers").write_text(line)
    now = datetime.now(UTC)
    principal = read_callers(tmp_path / "callers").by_token(token, now)
    assert ("ann", "Ann", {"annotator", "reviewer"}) == (
        principal.subject,
        principal.display_name,
        principal.roles,
    )
    assert timedelta(days=29) < datetime.fromisoformat(json.loads(line)["expires"]) - now <= timedelta(days=30)
    assert token not in made.stderr


def test_lines_are_added_to_the_file(command: Command, tmp_path: Path) -> None:
    """With --add-to the lines go into the file, which only its owner reads, and only tokens are printed."""
    path = tmp_path / "callers.jsonl"
    tokens = [command("token", "create", name, "--role", "viewer", "--add-to", path).stdout.strip() for name in "ab"]
    path.write_text(path.read_text().rstrip("\n"))
    tokens.append(command("token", "create", "c", "--role", "viewer", "--add-to", path).stdout.strip())
    callers = read_callers(path)
    assert ["a", "b", "c"] == [callers.by_token(token, datetime.now(UTC)).subject for token in tokens]
    assert 0o600 == path.stat().st_mode & 0o777


def test_token_as_json(command: Command) -> None:
    """Programs get both parts."""
    made = json.loads(command("token", "create", "pacs", "--role", "integrator", "--json").stdout)
    assert {"token", "line"} == made.keys()
    assert "pacs" == json.loads(made["line"])["subject"]


@pytest.mark.parametrize("arguments", [["ann"], ["ann", "--role", "root"], ["ann", "--role", "viewer", "--days", "0"]])
def test_unclear_tokens_are_refused(command: Command, arguments: list[str]) -> None:
    """A token needs known roles and a future."""
    assert 2 == command("token", "create", *arguments).exit_code


def test_tokens_do_not_travel_in_plain_text(command: Command, tmp_path: Path) -> None:
    """A token for a far address without TLS is refused before anything is sent, with the way out."""
    (tmp_path / "token").write_text("abc")
    result = command("--address", "rekindle.example:50051", "--token-file", tmp_path / "token", "project", "list")
    assert 2 == result.exit_code
    assert "plain text" in result.stderr
    assert "--ca" in result.stderr


def test_refusals_have_an_exit_code() -> None:
    """Scripts can tell that somebody is not allowed from everything else."""
    assert {6} == {exit_code(PermissionDenied("no")), exit_code(Unauthenticated("who"))}


def test_options_reach_the_client(command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Options count more than the environment, and a file that is not there is told."""
    monkeypatch.setenv("REKINDLE_CA", str(tmp_path / "from-environment"))
    for arguments, expected in (([], "from-environment"), (["--ca", tmp_path / "from-option"], "from-option")):
        result = command(*arguments, "project", "list")
        assert 2 == result.exit_code
        assert expected in result.stderr
