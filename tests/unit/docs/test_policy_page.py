"""docs/policy.md has every rule of a project, with its option and the default that a client sends."""

from __future__ import annotations

import re
from dataclasses import fields
from pathlib import Path

import click
from rekindle.cli.policy import policy_options
from rekindle.config import Policy

PAGE = Path(__file__).parents[3] / "docs" / "policy.md"
ROWS = re.findall(r"^\| `(\w+)` \| (.*?) \| (.*?) \| .* \|$", PAGE.read_text(), re.MULTILINE)


def test_every_field_is_on_the_page() -> None:
    """In the order in which the class has them."""
    assert [field.name for field in fields(Policy)] == [name for name, _, _ in ROWS]


def test_every_option_is_on_the_page() -> None:
    """And no other; of a switch the name that sets it."""
    command = policy_options(click.command()(lambda **_: None))
    known = {option.opts[0] for option in command.params}
    assert known == {option for _, options, _ in ROWS for option in re.findall(r"`(--[\w-]+)`", options)}


def test_defaults_are_those_of_a_client() -> None:
    """Numbers and words as they are; "none" where nothing is sent."""
    written = {name: default.strip("`") for name, _, default in ROWS if name != "held_out"}
    policy = Policy()
    actual = {name: _words(getattr(policy, name)) for name in written}
    assert actual == written


def _words(value: object) -> str:
    if value is None:
        return "none"
    return str(value).lower() if isinstance(value, bool) else f"{value:g}" if isinstance(value, float) else str(value)
