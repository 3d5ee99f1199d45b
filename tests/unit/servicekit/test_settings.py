"""Settings from the environment."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import pytest
from pydantic import Field, SecretStr, ValidationError
from pydantic_settings import SettingsConfigDict
from rekindle.errors import InvalidInput
from rekindle_servicekit.settings import ServiceSettings, settings_table


class _Settings(ServiceSettings):
    model_config = SettingsConfigDict(env_prefix="REKINDLE_TESTER_")

    address: str = Field(default="127.0.0.1:0", description="Where to listen.")
    grace_seconds: float = Field(default=10.0, description="How long calls may still run.")
    password: str | None = Field(default=None, description="Of the database.")
    delay_us: int | None = Field(default=2000, description="To gather a batch; none: no gathering.")
    certificate: Path | None = Field(default=None, description="PEM file.")
    level: Literal["low", "high"] = Field(default="low", description="How much.")
    labels: dict[str, str] = Field(default_factory=dict, description="Of the nodes, as JSON.")
    strict: bool = Field(default=True, description="Whether.")
    key: SecretStr = Field(default=SecretStr(""), description="Of the store.")


def test_values_come_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """A variable with the prefix sets its field; an argument wins over it; the rest keeps its default."""
    monkeypatch.setenv("REKINDLE_TESTER_GRACE_SECONDS", "2.5")
    monkeypatch.setenv("REKINDLE_TESTER_ADDRESS", "127.0.0.1:7000")
    settings = _Settings.load(address="127.0.0.1:8000")
    assert (2.5, "127.0.0.1:8000", None) == (settings.grace_seconds, settings.address, settings.password)


@pytest.mark.parametrize(
    ("variable", "nearest"),
    [
        ("REKINDLE_TESTER_ADRESS", "REKINDLE_TESTER_ADDRESS"),
        ("REKINDLE_TESTER_GRACE_SECOND", "REKINDLE_TESTER_GRACE_SECONDS"),
        ("rekindle_tester_pasword", "REKINDLE_TESTER_PASSWORD"),
    ],
)
@pytest.mark.parametrize("build", [_Settings, _Settings.load])
def test_misspelt_variable_is_refused(
    monkeypatch: pytest.MonkeyPatch, variable: str, nearest: str, build: type[_Settings]
) -> None:
    """A variable with the prefix that sets nothing is an error that names the nearest known one."""
    monkeypatch.setenv(variable, "secret-value")
    with pytest.raises(InvalidInput, match=f"{variable}: did you mean {nearest}") as caught:
        build()
    assert "UNKNOWN_SETTING" == caught.value.reason
    assert [variable] == [violation.field for violation in caught.value.violations]
    assert "secret-value" not in str(caught.value)


def test_far_off_variable_lists_what_is_known(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where nothing is near, the error lists the known variables."""
    monkeypatch.setenv("REKINDLE_TESTER_QQQQQQQQQQQQQQQQQQQQQQQQQQQQQQQQQQ", "1")
    with pytest.raises(InvalidInput, match="known are REKINDLE_TESTER_ADDRESS, REKINDLE_TESTER_GRACE_SECONDS"):
        _Settings.load()


def test_other_prefixes_are_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Another service's variables, and the shell's, are none of this service's business."""
    monkeypatch.setenv("REKINDLE_TESTING_ADRESS", "x")
    monkeypatch.setenv("REKINDLE_OTHER", "x")
    assert 10.0 == _Settings.load().grace_seconds


def test_wrong_value_is_named_without_being_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    """The error names the variable and what is wrong, and does not repeat the value."""
    monkeypatch.setenv("REKINDLE_TESTER_GRACE_SECONDS", "secret-value")
    with pytest.raises(InvalidInput, match="REKINDLE_TESTER_GRACE_SECONDS: Input should be a valid number") as caught:
        _Settings.load()
    assert "secret-value" not in str(caught.value)


def test_values_may_lie_in_files(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Of any setting the variable with _FILE at its end names a file that holds the value; arguments win over it."""
    (tmp_path / "password").write_text("from file\n")
    (tmp_path / "grace").write_text("3.5")
    monkeypatch.setenv("REKINDLE_TESTER_PASSWORD_FILE", str(tmp_path / "password"))
    monkeypatch.setenv("rekindle_tester_grace_seconds_file", str(tmp_path / "grace"))
    settings = _Settings.load()
    assert ("from file", 3.5) == (settings.password, settings.grace_seconds)
    assert "given" == _Settings.load(password="given").password


def test_files_of_settings_that_do_not_help_are_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A file that cannot be read, a value given twice and a file for no setting are errors with the variable's name."""
    monkeypatch.setenv("REKINDLE_TESTER_PASSWORD_FILE", str(tmp_path / "absent"))
    with pytest.raises(InvalidInput, match=r"REKINDLE_TESTER_PASSWORD_FILE: .* cannot be read"):
        _Settings.load()
    monkeypatch.setenv("REKINDLE_TESTER_PASSWORD", "secret-value")
    with pytest.raises(InvalidInput, match="both set") as caught:
        _Settings.load()
    assert "secret-value" not in str(caught.value)
    monkeypatch.delenv("REKINDLE_TESTER_PASSWORD_FILE")
    monkeypatch.setenv("REKINDLE_TESTER_PASWORD_FILE", "x")
    with pytest.raises(InvalidInput, match="unknown setting"):
        _Settings.load()


@pytest.mark.parametrize("nothing", ["", "none", "None"])
def test_what_may_be_nothing_is_nothing_where_it_is_empty(nothing: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A number that may be missing takes an empty value or the word none; so there is a way to say it."""
    monkeypatch.setenv("REKINDLE_TESTER_DELAY_US", nothing)
    assert _Settings.load().delay_us is None


def test_an_empty_path_is_none_and_empty_text_is_text(monkeypatch: pytest.MonkeyPatch) -> None:
    """An empty path is not the current folder; a file may be called none; text stays as it is."""
    monkeypatch.setenv("REKINDLE_TESTER_CERTIFICATE", "")
    monkeypatch.setenv("REKINDLE_TESTER_PASSWORD", "")
    settings = _Settings.load()
    assert (None, "") == (settings.certificate, settings.password)
    monkeypatch.setenv("REKINDLE_TESTER_CERTIFICATE", "none")
    assert Path("none") == _Settings.load().certificate


def test_a_value_that_is_no_json_is_refused_in_words(monkeypatch: pytest.MonkeyPatch) -> None:
    """Named by its variable, without what it holds."""
    monkeypatch.setenv("REKINDLE_TESTER_LABELS", "pool=gpu")
    with pytest.raises(InvalidInput, match="REKINDLE_TESTER_LABELS: write it as JSON") as error:
        _Settings.load()
    assert "pool" not in str(error.value)


def test_settings_are_frozen() -> None:
    """Nobody changes settings once they are built."""
    settings = _Settings.load()
    with pytest.raises(ValidationError, match="frozen"):
        settings.address = "0.0.0.0:1"  # pyright: ignore[reportAttributeAccessIssue]


def test_table_lists_every_setting() -> None:
    """The table for --help has variable, default and meaning of each setting, aligned."""
    assert [
        "variable                       default      meaning",
        "REKINDLE_TESTER_ADDRESS        127.0.0.1:0  Where to listen.",
        "REKINDLE_TESTER_GRACE_SECONDS  10.0         How long calls may still run.",
        "REKINDLE_TESTER_PASSWORD       (empty)      Of the database.",
        "REKINDLE_TESTER_DELAY_US       2000         To gather a batch; none: no gathering.",
        "REKINDLE_TESTER_CERTIFICATE    (empty)      PEM file.",
        "REKINDLE_TESTER_LEVEL          low          How much. (low, high)",
        "REKINDLE_TESTER_LABELS         {}           Of the nodes, as JSON.",
        "REKINDLE_TESTER_STRICT         true         Whether.",
        "REKINDLE_TESTER_KEY            (empty)      Of the store.",
    ] == settings_table(_Settings).splitlines()
