"""The command line of a service: which command runs, and how a refused start ends."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator

import pytest
from pydantic_settings import SettingsConfigDict
from rekindle.errors import InvalidInput
from rekindle_servicekit.arguments import run_command
from rekindle_servicekit.listening import ListenSettings


class _Settings(ListenSettings):
    model_config = SettingsConfigDict(env_prefix="REKINDLE_TESTER_")

    address: str = "127.0.0.1:0"


@pytest.fixture(autouse=True)
def _logging_as_before() -> Iterator[None]:
    """The command takes the process's log over; pytest's handlers come back afterwards."""
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    yield
    logging.captureWarnings(False)
    root.handlers[:] = handlers
    root.setLevel(level)


def _run(arguments: list[str], serve_error: Exception | None = None) -> tuple[int, list[str]]:
    """The exit code, and which commands ran with which address."""
    carried_out: list[str] = []

    def serve(settings: _Settings) -> None:
        if serve_error is not None:
            raise serve_error
        carried_out.append(f"serve {settings.address}")

    def migrate(settings: _Settings) -> None:
        carried_out.append(f"migrate {settings.address}")

    code = run_command("tester", "A test.", _Settings, serve=serve, migrate=migrate, arguments=arguments)
    return code, carried_out


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [([], "serve 127.0.0.1:7"), (["serve"], "serve 127.0.0.1:7"), (["migrate"], "migrate 127.0.0.1:7")],
)
def test_command_runs_with_the_settings(monkeypatch: pytest.MonkeyPatch, arguments: list[str], expected: str) -> None:
    """The command that was asked for, serving without one, gets the settings of the environment; 0 at its end."""
    monkeypatch.setenv("REKINDLE_TESTER_ADDRESS", "127.0.0.1:7")
    assert (0, [expected]) == _run(arguments)


def test_refused_start_is_one_line_and_2(capsys: pytest.CaptureFixture[str]) -> None:
    """A start that is refused ends with 2, and the log says in one JSON line why."""
    code, _ = _run([], InvalidInput("the address is taken"))
    line = json.loads(capsys.readouterr().err)
    assert 2 == code
    assert ("tester", "start.refused", "the address is taken") == (line["service"], line["action"], line["message"])


def test_wrong_settings_are_a_refused_start(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A misspelt setting ends in the same way, before anything runs."""
    monkeypatch.setenv("REKINDLE_TESTER_ADRESS", "127.0.0.1:7")
    assert (2, []) == _run([])
    assert "ADRESS" in json.loads(capsys.readouterr().err)["message"]


def test_unforeseen_error_is_not_hidden() -> None:
    """An error that is not ours comes out with its traceback."""
    with pytest.raises(ZeroDivisionError):
        _run([], ZeroDivisionError())


def test_unknown_command_ends_with_usage(capsys: pytest.CaptureFixture[str]) -> None:
    """Another command is refused with the list of those there are."""
    with pytest.raises(SystemExit):
        _run(["destroy"])
    assert "migrate" in capsys.readouterr().err
