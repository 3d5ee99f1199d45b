"""What goes wrong at the command line: one clear line, an exit code, no traceback."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import click
import pytest
from fake_world import Command, World
from rekindle import errors
from rekindle.cli.commands import rekindle
from rekindle.errors import FieldViolation
from rekindle.projects import Project


@pytest.mark.parametrize(
    ("error_class", "code"),
    [
        (errors.InvalidInput, 2),
        (errors.NotFound, 3),
        (errors.AlreadyExists, 4),
        (errors.IllegalTransition, 4),
        (errors.ModelNotReady, 4),
        (errors.LeaseLost, 4),
        (errors.VersionConflict, 4),
        (errors.DeadlineExceeded, 5),
        (errors.PermissionDenied, 6),
        (errors.InternalError, 1),
    ],
)
def test_exit_code_tells_the_kind(
    command: Command, project: Project, world: World, error_class: Any, code: int
) -> None:
    """Scripts can tell errors apart; people get the message on stderr and nothing on stdout."""
    world.failures["ListRounds"] = [error_class("what is wrong")]
    result = command("rounds", "list", "--json")
    assert (code, "", "error: what is wrong\n") == (result.exit_code, result.stdout, result.stderr)


def test_fields_at_fault_are_listed(command: Command, world: World) -> None:
    """Each violation is a line of its own."""
    violations = [FieldViolation("organs[0].label_value", "must be 1 to 255"), FieldViolation("name", "is empty")]
    world.failures["CreateProject"] = [errors.InvalidInput("the project is wrong", violations=violations)]
    result = command("project", "create", "p", "--organ", "liver=300")
    assert 2 == result.exit_code
    assert (
        "error: the project is wrong\n  - organs[0].label_value: must be 1 to 255\n  - name: is empty\n"
        == result.stderr
    )


def test_incident_is_told(command: Command, project: Project, world: World) -> None:
    """A fault of the service names its incident for whoever reads the log."""
    world.failures["ListRounds"] = [errors.InternalError("it broke", metadata={"incident_id": "i-7"})]
    assert "incident i-7" in command("rounds", "list").stderr


def test_service_that_is_away_is_named_without_a_traceback() -> None:
    """The real command against an address where nobody listens."""
    arguments = ["--address", "127.0.0.1:1", "project", "list"]
    result = subprocess.run(
        [sys.executable, "-m", "rekindle.cli.main", *arguments], capture_output=True, text=True, timeout=60
    )
    assert (5, "") == (result.returncode, result.stdout)
    assert "error: the scheduler service at 127.0.0.1:1 cannot be reached" in result.stderr
    assert "Traceback" not in result.stderr


@pytest.mark.parametrize("arguments", [["nonsense"], ["cases", "mark"], ["--address", "nowhere", "project", "list"]])
def test_wrong_words_are_wrong_input(command: Command, arguments: list[str]) -> None:
    """Unknown commands, missing arguments and half addresses exit with 2."""
    result = command(*arguments)
    assert 2 == result.exit_code
    assert "Traceback" not in result.stderr


def test_missing_extra_is_explained() -> None:
    """Without click the command says what to install."""
    code = "import sys; sys.modules['click'] = None; import rekindle.cli.main as m; m.main()"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert 1 == result.returncode
    assert result.stderr.endswith("pip install 'rekindle[cli]'\n")


def commands(command: click.Command, path: tuple[str, ...] = ()) -> list[tuple[str, ...]]:
    """Every command and group below `command`, as words."""
    if not isinstance(command, click.Group):
        return [path]
    below = [commands(child, (*path, name)) for name, child in command.commands.items()]
    return [path, *(words for found in below for words in found)]


@pytest.mark.parametrize("words", commands(rekindle), ids=" ".join)
def test_every_command_explains_itself(command: Command, words: tuple[str, ...]) -> None:
    """Help is there for everything, every option is explained, and --json works everywhere."""
    result = command(*words, "--help")
    assert 0 == result.exit_code
    assert result.stdout.splitlines()[2].strip()
    assert "--json" in result.stdout or isinstance(_find(words), click.Group)
    for parameter in _find(words).params:
        assert not isinstance(parameter, click.Option) or parameter.help


@pytest.mark.parametrize(
    "words", ["info", "verify", "token create", "project create", "project list", "project import"]
)
def test_commands_of_no_single_project_do_not_ask_for_one(command: Command, words: str) -> None:
    """Their help does not speak of --project; scripts that give it to all commands go on working."""
    assert "--project" not in command(*words.split(), "--help").stdout
    assert "--project" in command("project", "show", "--help").stdout
    assert 0 == command("project", "list", "--project", "any").exit_code


def _find(words: tuple[str, ...]) -> click.Command:
    found: click.Command = rekindle
    for word in words:
        assert isinstance(found, click.Group)
        found = found.commands[word]
    return found


def test_the_file_at_fault_is_named_among_many(
    command: Command, project: Project, world: World, tmp_path: Path
) -> None:
    """Of a folder that is added, the scan that is refused is told."""
    for name in ("a.nii.gz", "b.nii.gz"):
        (tmp_path / name).write_bytes(name.encode())
    world.failures["UploadVolume"] = [errors.InvalidInput("it is no NIfTI file")]
    result = command("cases", "add", tmp_path)
    assert (2, "error: a.nii.gz: it is no NIfTI file\n") == (result.exit_code, result.stderr)
