"""What the documentation names exists: commands, their options, make targets, settings, files that it links to."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
from rekindle.cli.commands import rekindle

ROOT = Path(__file__).parents[3]
PAGES = sorted(
    path
    for pattern in ("*.md", "docs/**/*.md", "examples/*.md", "deploy/helm/rekindle/files/*.yaml")
    for path in ROOT.glob(pattern)
    if path.name != "CHANGELOG.md"
)
#: A command ends here; what follows is another one, a comment, or where its output goes.
_ENDS = {"|", "||", "&&", ";", "&", ">", ">>", "<", "2>", "#"}
_CODE = re.compile(r"```[^\n]*\n(.*?)```|`([^`\n]+)`", re.DOTALL)
_LINK = re.compile(r"\]\(([^)\s]+)\)")


def code_lines(page: Path) -> Iterator[str]:
    """Lines of blocks, with continued ones joined, and code within sentences."""
    for block, inline in _CODE.findall(page.read_text()):
        yield from re.sub(r"\\\n\s*", " ", block or inline).splitlines()


def words_of(line: str) -> list[str]:
    lexer = shlex.shlex(line, posix=True, punctuation_chars=True)
    lexer.whitespace_split = True
    lexer.commenters = ""
    try:
        return list(lexer)
    except ValueError:  # prose with an apostrophe
        return line.split()


def calls(line: str, program: str) -> Iterator[list[str]]:
    """The arguments of each call of `program` in a line: it stands first, after an ending, or after variables."""
    words, begins = words_of(line.strip().removeprefix("$ ")), True
    for place, word in enumerate(words):
        if word == "#":
            return
        if begins and word.rpartition("/")[2] == program:
            rest = words[place + 1 :]
            yield rest[: next((i for i, each in enumerate(rest) if each in _ENDS), len(rest))]
        begins = word in _ENDS or (begins and re.fullmatch(r"[A-Z_]+=.*", word) is not None)


def problem_with(arguments: list[str]) -> str | None:
    """What the command line would not know of these words; None where it knows all of them."""
    command: click.Command | click.Group = rekindle
    known, left = options_of(rekindle), list(arguments)
    while left:
        word = left.pop(0)
        if word.startswith("-") and len(word) > 1:
            name, _, value = word.partition("=")
            if name not in known and name not in {"-h", "--help"}:
                return f"{command.name} has no option {name}"
            if not value and name in known and not known[name].is_flag and left:
                left.pop(0)
        elif isinstance(command, click.Group):
            if re.fullmatch(r"[A-Z.]+", word):  # any command
                return None
            found = command.get_command(click.Context(command), word)
            if found is None:
                return f"{command.name} has no command {word}"
            command, known = found, options_of(rekindle) | options_of(found)
    return None


def options_of(command: click.Command) -> dict[str, click.Option]:
    options = [each for each in command.params if isinstance(each, click.Option)]
    return {name: option for option in options for name in (*option.opts, *option.secondary_opts)}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_commands_exist(page: Path) -> None:
    """Every `rekindle ...`, with its options, is one that the command line has."""
    found = [call for line in code_lines(page) for call in calls(line, "rekindle")]
    if page.suffix == ".yaml":
        found = [call for code in re.findall(r"`([^`]+)`", page.read_text()) for call in calls(code, "rekindle")]
    problems = [f"rekindle {' '.join(call)}: {problem}" for call in found if (problem := problem_with(call))]
    assert [] == problems


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_make_targets_exist(page: Path) -> None:
    """Every `make ...` names a target of the Makefile."""
    targets = set(re.findall(r"^([a-z0-9-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    asked = [word for line in code_lines(page) for call in calls(line, "make") for word in call if "=" not in word]
    assert set() == {word for word in asked if not word.startswith("-")} - targets


@pytest.mark.parametrize(
    "page", [each for each in PAGES if each.suffix == ".md"], ids=lambda p: str(p.relative_to(ROOT))
)
def test_links_lead_somewhere(page: Path) -> None:
    """Relative links name files that exist, and headings that they have."""
    broken: list[str] = []
    for link in _LINK.findall(page.read_text()):
        if re.match(r"[a-z]+:", link):
            continue
        path, _, heading = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        if not target.exists() or (heading and heading not in headings_of(target)):
            broken.append(link)
    assert [] == broken


@pytest.mark.parametrize("index", ["docs", "docs/operations", "docs/adr", "examples"])
def test_every_page_is_in_its_index(index: str) -> None:
    """The README.md of a folder links to each page beside it, and to the programs of examples."""
    linked = set(_LINK.findall((ROOT / index / "README.md").read_text()))
    beside = {path.name for kind in ("*.md", "*.py") for path in (ROOT / index).glob(kind)} - {"README.md"}
    assert set() == beside - linked


def headings_of(page: Path) -> set[str]:
    titles = re.findall(r"^#+ (.+)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


def test_what_does_not_exist_is_found() -> None:
    """The check itself: an unknown command, subcommand and option; variables, pipes and continued lines."""
    assert "rekindle has no command polish" == problem_with(["polish"])
    assert "runs has no command show" == problem_with(["--json", "runs", "show", "RUN"])
    assert "verify has no option --shallow" == problem_with(["verify", "--shallow"])
    assert problem_with(["--address", "host:1", "next", "--wait", "30", "--json"]) is None
    line = "REKINDLE_CA=ca.pem .venv/bin/rekindle project list | rekindle cases && rekindle info  # rekindle x"
    assert [["project", "list"], ["cases"], ["info"]] == list(calls(line, "rekindle"))
    assert [] == list(calls("the rekindle polish is no call", "rekindle"))
