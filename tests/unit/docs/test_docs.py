"""What the documentation names exists: commands, options, make targets, settings, values of the chart, linked files."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
import yaml
from chart_settings import CHART, SETTINGS
from rekindle.cli.commands import rekindle
from rekindle_servicekit.settings import environment_variables, file_variables

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
#: A shell's variable in an example, what Python's TLS reads, and reasons that are put together of two words.
_NO_WORDS_OF_THE_CODE = {"SCHEDULER_URL", "SSL_CERT_FILE", "INFERENCE_REFUSES", "TRAINER_REFUSES"}
#: A variable of a service, or of several: REKINDLE_TRAINER_THREADS, ..._OBJECTS_{READ,TOTAL}_TIMEOUT_S.
_SETTING = re.compile(r"(REKINDLE_(?:SCHEDULER|INFERENCE|TRAINER|\{[A-Z,]+\})|(?<![\w/])\.\.\.)_([A-Z][A-Z0-9_{},]+)")


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


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_settings_exist(page: Path) -> None:
    """Of the service that is named, or of any; also the variable that names a value's file."""
    known = {
        service: set(environment_variables(settings)) | set(file_variables(settings))
        for service, settings in SETTINGS.items()
    }
    everywhere = {name.split("_", 2)[2] for names in known.values() for name in names}
    for prefix, name in _SETTING.findall(page.read_text()):
        for each in spelt_out(name):
            services = [] if prefix == "..." else spelt_out(prefix.removeprefix("REKINDLE_"))
            assert each in everywhere, f"{prefix}_{each}"
            assert all(f"REKINDLE_{service}_{each}" in known[service.lower()] for service in services)


@pytest.fixture(scope="module")
def code_words() -> set[str]:
    """Every word of the product's sources, in capitals."""
    folders = ("sdk/src", "libs", "services", "protos", "deploy")
    endings = {".py", ".proto", ".yaml", ".tpl", ".Dockerfile"}
    found: set[str] = set()
    for path in (each for folder in folders for each in (ROOT / folder).rglob("*") if each.suffix in endings):
        found.update(re.findall(r"\w+", path.read_text().upper()))
    return found | set(re.findall(r"\w+", (ROOT / "Makefile").read_text()))


@pytest.mark.parametrize("page", [page for page in PAGES if page.suffix == ".md"], ids=lambda page: page.name)
def test_reasons_exist(page: Path, code_words: set[str]) -> None:
    """Words in capitals within sentences, reasons of errors above all, are words of the code."""
    named = set(re.findall(r"(?<![\w.{])([A-Z][A-Z0-9]+(?:_[A-Z0-9]+)+)(?![\w}])", " ".join(inline(page))))
    unknown = {name for name in named - code_words - _NO_WORDS_OF_THE_CODE if not name.startswith("REKINDLE_")}
    assert set() == {name for name in unknown if name.removesuffix("_FILE") not in code_words}


def inline(page: Path) -> list[str]:
    """Code within sentences and tables."""
    return re.findall(r"`([^`\n]+)`", re.sub(r"```.*?```", "", page.read_text(), flags=re.DOTALL))


def spelt_out(name: str) -> list[str]:
    """A_{B,C}_D as A_B_D and A_C_D."""
    head, brace, rest = name.partition("{")
    middle, _, tail = rest.partition("}")
    return [f"{head}{part}{tail}" for part in middle.split(",")] if brace else [name]


@pytest.mark.parametrize("page", sorted((ROOT / "docs" / "operations").glob("*.md")), ids=lambda page: page.name)
def test_values_of_the_chart_exist(page: Path) -> None:
    """What looks like one, `trainer.jobs.memory=64Gi` say, is in values.yaml, or a setting under `settings`."""
    values = yaml.safe_load((CHART / "values.yaml").read_text())
    named = re.findall(rf"`((?:{'|'.join(values)})(?:\.\w+)+)(?:[=:][^`]*)?`", page.read_text())
    assert [] == [path for path in named if not in_values(values, path.split("."))]


def in_values(values: object, path: list[str]) -> bool:
    if len(path) == 3 and path[1] == "settings":
        return path[2] in SETTINGS[path[0]].model_fields
    for part in path:
        if not isinstance(values, dict) or part not in values:
            return False
        values = values[part]
    return True


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
    assert ["A_B_D", "A_C_D"] == spelt_out("A_{B,C}_D")
    assert [("...", "OBJECTS_URL"), ("REKINDLE_TRAINER", "NICE")] == _SETTING.findall(
        "..._OBJECTS_URL REKINDLE_TRAINER_NICE"
    )
    values = {"trainer": {"jobs": {"memory": "16Gi"}}}
    assert in_values(values, ["trainer", "jobs", "memory"])
    assert in_values(values, ["trainer", "settings", "nice"])
    assert not in_values(values, ["trainer", "jobs", "memmory"])
    assert not in_values(values, ["trainer", "settings", "polish"])
