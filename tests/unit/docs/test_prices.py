"""What a new ordering and a new rule of a policy cost, counted by those that exist."""

from __future__ import annotations

import re
from pathlib import Path

from rekindle.api.scheduler.v1 import records_pb2
from rekindle.convert import word_of
from rekindle_scheduler.domain.orderings import OrderingName

ROOT = Path(__file__).parents[3]
SCHEDULER = "services/scheduler/src/rekindle_scheduler"


def files_with(pattern: str, *globs: str) -> set[str]:
    """Hand-written files with a match, by their paths from the root."""
    files = (file for glob in globs for file in ROOT.glob(glob))
    named = {str(file.relative_to(ROOT)) for file in files if re.search(pattern, file.read_text())}
    return {name for name in named if not name.startswith("sdk/src/rekindle/api/")}


def test_an_ordering_stands_in_two_files() -> None:
    """Its number in the API, its word and function; clients and commands take it from the API."""
    sources = (
        "protos/**/*.proto",
        "services/*/src/**/*.py",
        "sdk/src/**/*.py",
        "libs/*/src/**/*.py",
        "deploy/local/src/**/*.py",
    )
    expected = {"protos/rekindle/api/scheduler/v1/records.proto", f"{SCHEDULER}/domain/orderings.py"}
    assert expected == files_with("(?i)first[-_]come", *sources)


def test_every_ordering_of_the_api_has_its_word() -> None:
    """The scheduler knows each number that a client may send, and no other."""
    numbers = [number for number in records_pb2.Ordering.values() if number]
    assert list(OrderingName) == [word_of(OrderingName, records_pb2.Ordering, n, "ordering") for n in numbers]


def test_a_rule_of_a_policy_stands_in_five_files() -> None:
    """Message, record, the client's record, option and page; and where the rule is used."""
    sources = ("services/*/src/**/*.py", "sdk/src/**/*.py", "libs/*/src/**/*.py", "protos/**/*.proto", "docs/*.md")
    carries = {
        "protos/rekindle/api/scheduler/v1/records.proto",
        f"{SCHEDULER}/domain/policy.py",
        "sdk/src/rekindle/config.py",
        "sdk/src/rekindle/cli/policy.py",
        "docs/policy.md",
    }
    uses = {f"{SCHEDULER}/domain/predictions.py"}
    assert carries | uses == files_with("candidate_pool", *sources)
