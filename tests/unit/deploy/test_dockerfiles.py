"""The images, as far as they can be checked without building them."""

from __future__ import annotations

import importlib
import re
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
from dockerfiles import ROOT, SERVICES, path_of, stages
from rekindle_servicekit.settings import environment_variables

#: Variables that belong to Python and to the GPU's driver.
_FOREIGN = {"PYTHONUNBUFFERED", "PYTHONDONTWRITEBYTECODE", "NVIDIA_VISIBLE_DEVICES", "NVIDIA_DRIVER_CAPABILITIES"}


def _settings(service: str) -> Any:
    module = importlib.import_module(f"rekindle_{service}.settings")
    return getattr(module, "TrainerSettings", None) or module.Settings


@pytest.mark.parametrize("service", SERVICES)
def test_linter_has_nothing_to_say(service: str) -> None:
    """hadolint finds nothing; what it is told to ignore has its reason beside it."""
    linter = Path(sys.executable).with_name("hadolint")
    result = subprocess.run([linter, "--no-color", path_of(service)], capture_output=True, text=True, check=False)
    assert ("", 0) == (result.stdout, result.returncode)


@pytest.mark.parametrize("service", SERVICES)
def test_last_stage_is_slim_and_unprivileged(service: str) -> None:
    """It runs as a number above 10000, installs nothing, and needs no shell to start or to be probed."""
    build, last = stages(service)
    assert ["10001:10001"] == last.all("USER")
    assert 1 == len(last.all("RUN"))
    assert not re.search(r"\b(pip|apt|apt-get|curl)\b", last.all("RUN")[0])
    assert ["--from=build /opt/rekindle /opt/rekindle"] == last.all("COPY")
    assert ["/opt/rekindle/bin/python", "-m", f"rekindle_{service}"] == last.command("ENTRYPOINT")
    assert ["/opt/rekindle/bin/python", "-m", "rekindle_servicekit.probe"] == last.command("HEALTHCHECK")
    assert build.all("COPY")


@pytest.mark.parametrize("service", SERVICES)
def test_environment_is_known_to_the_service(service: str) -> None:
    """Every variable that the image sets is a setting of its service, with a value that it takes."""
    environment = stages(service)[1].environment()
    known = environment_variables(_settings(service))
    assert set() == environment.keys() - known.keys() - _FOREIGN
    values = {known[name]: value for name, value in environment.items() if name in known}
    settings = _settings(service)(**values)
    assert settings.address.startswith("0.0.0.0:")
    assert not settings.insecure
    ports = {settings.address.rpartition(":")[2], str(settings.health_address).rpartition(":")[2]}
    assert ports == set(stages(service)[1].all("EXPOSE")[0].split())


@pytest.mark.parametrize("service", SERVICES)
def test_images_install_what_their_distributions_name(service: str) -> None:
    """Every extra that an image asks for exists, and it copies its service and all that this stands on."""
    build = stages(service)[0]
    folders = {arguments.split()[0] for arguments in build.all("COPY")} - {"constraints.txt"}
    projects = [tomllib.loads((ROOT / folder / "pyproject.toml").read_text())["project"] for folder in folders]
    extras = {project["name"]: set(project.get("optional-dependencies", {})) for project in projects}
    asked = {
        (name, extra)
        for arguments in build.all("RUN")
        for name, names in re.findall(r'"(rekindle[\w-]*)\[([\w,]+)\]"', arguments)
        for extra in names.split(",")
    }
    assert ("rekindle-servicekit", "postgresql") in asked
    assert all(extra in extras[name] for name, extra in asked)
    needed = {re.split(r"[\[><=~ ]", need)[0] for project in projects for need in project["dependencies"]}
    assert {need for need in needed if need.startswith("rekindle")} <= extras.keys()
    assert f"rekindle-{service}" in extras


def test_context_holds_sources_only() -> None:
    """What is sent to the builder is an allowlist, so no data, secret or state of this folder gets into an image."""
    lines = [line for line in (ROOT / ".dockerignore").read_text().splitlines() if line and not line.startswith("#")]
    assert "*" == lines[0]
    assert ["!constraints.txt", "!sdk", "!libs", "!services"] == [line for line in lines if line.startswith("!")]
