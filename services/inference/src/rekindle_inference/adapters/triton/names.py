"""Names of models in Triton: made here of what the database knows, and read back from an index."""

from __future__ import annotations

import re
from dataclasses import dataclass

from rekindle.errors import InvalidInput

from rekindle_inference.ports import Package

#: Where no installation has a name of its own.
DEFAULT_INSTALLATION = "rekindle"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,254}")
_VERSION = re.compile(r"(?P<project>.+)-(?P<role>igniter|sustainer)-v(?P<version>[1-9][0-9]*)-[0-9a-f]{12}")
_UNREGISTERED = re.compile(r"package-[0-9a-f]{64}")


@dataclass(frozen=True, slots=True)
class ModelName:
    """The name of one version's model, and the project that it serves."""

    text: str
    #: Empty for a package that is no version of a project.
    project_id: str


def model_name(installation: str, package: Package) -> ModelName:
    """`<installation>-<project>-<role>-v<n>-<first 12 digits of the package's digest>`.

    The digest makes the name stand for one graph for ever: whoever loads it anew, or at the same time, loads the
    same. InvalidInput where a part has characters that a folder or an object's key must not have.
    """
    serving = package.serving
    if serving is None:
        return ModelName(_checked(f"{installation}-package-{package.digest}"), "")
    version = f"{serving.project_id}-{serving.role}-v{serving.version}-{package.digest[:12]}"
    return ModelName(_checked(f"{installation}-{version}"), serving.project_id)


def own_name(installation: str, text: str) -> ModelName | None:
    """What a name in Triton's index stands for; None where another installation or somebody else made it."""
    if not text.startswith(f"{installation}-"):
        return None
    rest = text.removeprefix(f"{installation}-")
    found = _VERSION.fullmatch(rest)
    if found is not None:
        return ModelName(text, found["project"])
    return ModelName(text, "") if _UNREGISTERED.fullmatch(rest) else None


def _checked(text: str) -> str:
    if _NAME.fullmatch(text) is None or ".." in text:
        raise InvalidInput(
            "the model server cannot name a model of this project: its id may hold letters, digits and . _ - only, "
            "no two dots in a row, and at most 128 of them",
            reason="MODEL_NAME",
        )
    return text
