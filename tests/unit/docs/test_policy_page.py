"""docs/policy.md has every rule of a project, with its option and the default that the scheduler answers."""

from __future__ import annotations

import re
from dataclasses import fields, replace
from pathlib import Path

import click
from rekindle.cli.policy import policy_options
from rekindle.config import Policy
from rekindle_scheduler.domain.policy import Policy as ServersPolicy
from rekindle_scheduler.grpc.convert import policy_from_proto, policy_to_proto

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


def test_defaults_are_those_that_the_scheduler_answers() -> None:
    """For a policy of which nothing was given; numbers and words as they are, "none" where there is none."""
    written = {name: default.strip("`") for name, _, default in ROWS if name != "held_out"}
    answered = Policy.from_proto(policy_to_proto(policy_from_proto(Policy().to_proto())))
    assert written == {name: _words(getattr(answered, name)) for name in written}


def test_help_tells_the_same_defaults() -> None:
    """Every option that has a default says the one that is on the page."""
    command = policy_options(click.command()(lambda **_: None))
    helps = {option.opts[0]: option.help or "" for option in command.params if isinstance(option, click.Option)}
    written = {
        option: default.strip("`")
        for name, options, default in ROWS
        for option in re.findall(r"`(--[\w-]+)`", options)
        if name not in ("held_out", "sizes", "minutes_per_round")
    }
    assert written == {option: helps[option].partition("[server's default: ")[2].rstrip("]") for option in written}


def test_one_rule_of_promotion_alone_keeps_the_default_of_the_other() -> None:
    """The margin that the client sends along with the number of cases is the scheduler's own default."""
    answered = policy_from_proto(Policy(min_held_out_cases=5).to_proto())
    assert replace(ServersPolicy().promotion, min_held_out_cases=5) == answered.promotion
    answered = policy_from_proto(Policy(margin_dice=0.0).to_proto())
    assert replace(ServersPolicy().promotion, margin_dice=0.0) == answered.promotion


def _words(value: object) -> str:
    if value is None:
        return "none"
    if isinstance(value, tuple):
        return ",".join(_words(item) for item in value)
    return str(value).lower() if isinstance(value, bool) else f"{value:g}" if isinstance(value, float) else str(value)
