"""Dockerfiles as the tests read them: instructions by stage, with what they run."""

from __future__ import annotations

import json
import re
import shlex
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).parents[2]
SERVICES = ("scheduler", "inference", "trainer")


@dataclass
class Stage:
    """Instructions after one FROM, in order, each with its arguments as written (lines joined)."""

    instructions: list[tuple[str, str]] = field(default_factory=list)

    def all(self, word: str) -> list[str]:
        return [arguments for instruction, arguments in self.instructions if instruction == word]

    def environment(self) -> dict[str, str]:
        pairs = (part.partition("=") for arguments in self.all("ENV") for part in shlex.split(arguments))
        return {name: value for name, _, value in pairs}

    def command(self, word: str) -> list[str]:
        """The only instruction of this kind in its JSON form, as CMD and ENTRYPOINT have it."""
        (arguments,) = self.all(word)
        return json.loads(arguments[arguments.index("[") :])


def path_of(service: str) -> Path:
    return ROOT / "deploy" / "docker" / f"{service}.Dockerfile"


def stages(service: str) -> list[Stage]:
    """The stages of a service's Dockerfile; what stands before the first FROM belongs to none."""
    lines = [line for line in path_of(service).read_text().splitlines() if not line.lstrip().startswith("#")]
    joined = re.sub(r"\\\n\s*", "", "\n".join(lines))
    found: list[Stage] = []
    for line in filter(None, joined.splitlines()):
        word, _, arguments = line.partition(" ")
        if word == "FROM":
            found.append(Stage())
        if found:
            found[-1].instructions.append((word, arguments))
    return found
