"""The compose file, as far as it can be checked without containers."""

from __future__ import annotations

import importlib
import json
import os
import re
import ssl
import subprocess
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import yaml
from compose_spec import PyCompose
from cryptography import x509
from dockerfiles import ROOT, SERVICES, stages
from rekindle_servicekit.callers import read_callers
from rekindle_servicekit.settings import environment_variables, file_variables

FOLDER = ROOT / "deploy" / "compose"


def _variables(text: str) -> dict[str, str]:
    lines = [line for line in text.splitlines() if line and not line.startswith("#")]
    return dict(line.split("=", 1) for line in lines)


def _interpolated(text: str, variables: dict[str, str]) -> str:
    """Variables as compose puts them in: ``${NAME:-default}`` and ``${NAME:?error}``; ``$$`` is a dollar."""

    def value(match: re.Match[str]) -> str:
        name, how, rest = match.groups()
        if variables.get(name):
            return variables[name]
        assert ":-" == how, f"{name} is not in .env.example and has no default"
        return rest

    return re.sub(r"(?<!\$)\$\{(\w+)(?:(:-|:\?)([^}]*))?\}", value, text).replace("$$", "$")


@pytest.fixture(scope="module")
def text() -> str:
    """The file with the example's variables."""
    example = _variables((FOLDER / ".env.example").read_text())
    return _interpolated((FOLDER / "compose.yaml").read_text(), example)


@pytest.fixture(scope="module")
def compose(text: str) -> dict[str, Any]:
    return yaml.safe_load(text)


@pytest.fixture(scope="module")
def secrets(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What make-secrets makes."""
    folder = tmp_path_factory.mktemp("secrets")
    subprocess.run(
        [FOLDER / "make-secrets", "rekindle.example", "10.0.0.5"],
        env={**os.environ, "SECRETS": str(folder)},
        check=True,
        capture_output=True,
    )
    return folder


def _settings(service: str) -> Any:
    module = importlib.import_module(f"rekindle_{service}.settings")
    return getattr(module, "TrainerSettings", None) or module.Settings


def test_file_follows_the_specification(compose: dict[str, Any]) -> None:
    """A strict reader of the specification takes it, and finds every network, volume and secret that it names."""
    PyCompose.from_yaml(yaml.safe_dump(compose)).validate()
    for spoilt in (
        {**compose, "service": {}},
        {**compose, "services": {**compose["services"], "x": {"image": "a:1", "depend_on": ["y"]}}},
        {**compose, "services": {**compose["services"], "x": {"image": "a:1", "networks": ["nowhere"]}}},
    ):
        with pytest.raises(ValueError, match=r"\w"):
            PyCompose.from_yaml(yaml.safe_dump(spoilt)).validate()


@pytest.mark.parametrize("service", SERVICES)
def test_environment_is_known_to_the_service(compose: dict[str, Any], service: str, secrets: Path) -> None:
    """Every variable is a setting of its service, its files are secrets that it mounts, and the service would start."""
    definition = compose["services"][service]
    by_value, by_file = environment_variables(_settings(service)), file_variables(_settings(service))
    mounted = {f"/run/secrets/{name}": compose["secrets"][name]["file"] for name in definition["secrets"]}
    values: dict[str, str] = {}
    for variable, value in {**stages(service)[1].environment(), **definition["environment"]}.items():
        if not variable.startswith("REKINDLE_"):
            continue
        here = str(value)
        if here.startswith("/run/secrets/"):
            here = str(secrets / Path(mounted[here]).name)
        if variable in by_file:
            values[by_file[variable]] = Path(here).read_text().strip()
        else:
            values[by_value[variable]] = here
    settings = _settings(service)(**values)
    assert settings.tls_certificate
    assert settings.callers_file
    assert not settings.insecure
    used = {value for value in map(str, definition["environment"].values()) if value.startswith("/run/secrets/")}
    assert used == mounted.keys()


def test_passwords_are_in_files(compose: dict[str, Any], secrets: Path) -> None:
    """No definition holds a value of a secret, and every secret's file is one that make-secrets makes."""
    for name, secret in compose["secrets"].items():
        path = secrets / Path(secret["file"]).name
        assert path.stat().st_size, name
        assert path.read_text().strip() not in (FOLDER / "compose.yaml").read_text()
    assert 0o700 == secrets.stat().st_mode & 0o777
    for private in ("ca.key", "admin_token"):
        assert 0o600 == (secrets / private).stat().st_mode & 0o777


def test_secrets_fit_together(secrets: Path) -> None:
    """The certificate is good for every name, the tokens are known with their roles, the passwords agree."""
    certificate = x509.load_pem_x509_certificate((secrets / "tls_certificate.pem").read_bytes())
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert {"localhost", *SERVICES, "rekindle.example"} == set(names.get_values_for_type(x509.DNSName))
    assert {"127.0.0.1", "10.0.0.5"} == {str(ip) for ip in names.get_values_for_type(x509.IPAddress)}
    certificate.verify_directly_issued_by(x509.load_pem_x509_certificate((secrets / "ca.pem").read_bytes()))
    ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(secrets / "tls_certificate.pem", secrets / "tls_key.pem")
    callers, now = read_callers(secrets / "callers.jsonl"), datetime.now(UTC)
    for name, role in (("scheduler_token", "service"), ("admin_token", "admin")):
        assert {role} == callers.by_token((secrets / name).read_text().strip(), now).roles
    password = (secrets / "postgres_password").read_text().strip()
    for service in SERVICES:
        url = (secrets / f"{service}_database_url").read_text().strip()
        assert f"postgresql://rekindle:{password}@postgres:5432/{service}" == url
        assert f"CREATE DATABASE {service};" in (FOLDER / "databases.sql").read_text()
    triton = json.loads((secrets / "triton_credentials.json").read_text())["s3"][""]
    assert triton["key_id"] == (secrets / "objects_access_key").read_text().strip()
    assert triton["secret_key"] == (secrets / "objects_secret_key").read_text().strip()


def test_making_secrets_again_changes_nothing(secrets: Path) -> None:
    """What is there already stays: nobody is locked out by running it twice."""
    before = {path.name: path.read_bytes() for path in secrets.iterdir()}
    subprocess.run(
        [FOLDER / "make-secrets"], env={**os.environ, "SECRETS": str(secrets)}, check=True, capture_output=True
    )
    assert before == {path.name: path.read_bytes() for path in secrets.iterdir()}


def _neighbours(compose: dict[str, Any], service: str) -> set[str]:
    """Who shares a network with a service."""
    networks = set(compose["services"][service]["networks"])
    return {
        name
        for name, definition in compose["services"].items()
        if name != service and networks & set(definition["networks"])
    }


def test_networks_let_through_what_is_needed(compose: dict[str, Any]) -> None:
    """Of the three services only inference reaches Triton, only they reach PostgreSQL, and only they are published."""
    assert {"inference"} == _neighbours(compose, "triton") & set(SERVICES)
    assert set(SERVICES) == _neighbours(compose, "postgres")
    assert {"inference", "trainer", "bucket", "triton"} == _neighbours(compose, "minio")
    published = {name for name, definition in compose["services"].items() if "ports" in definition}
    assert set(SERVICES) == published
    for definition in compose["services"].values():
        assert all(port.startswith("127.0.0.1:") for port in definition.get("ports", []))
    inner = {name for name, network in compose["networks"].items() if network.get("internal")}
    assert {"clients"} == compose["networks"].keys() - inner


def test_start_waits_for_what_is_needed(compose: dict[str, Any]) -> None:
    """Who needs something waits until it is healthy, or done; and everything that goes on can tell its health."""
    for name, definition in compose["services"].items():
        for needed, how in definition.get("depends_on", {}).items():
            ends = compose["services"][needed]["restart"] == "no"
            assert how["condition"] == ("service_completed_successfully" if ends else "service_healthy"), (name, needed)
    probed = {name for name, definition in compose["services"].items() if "healthcheck" in definition} | set(SERVICES)
    assert {"bucket"} == compose["services"].keys() - probed


@pytest.mark.parametrize("service", SERVICES)
def test_containers_are_not_killed_while_they_end(compose: dict[str, Any], service: str) -> None:
    """A service has the time that its calls and a training process are given, and some more."""
    settings = {name: field.default for name, field in _settings(service).model_fields.items()}
    needed_s = settings["grace_s"] + settings.get("stop_grace_s", 0.0)
    assert int(compose["services"][service]["stop_grace_period"].removesuffix("s")) >= needed_s + 10


def test_containers_may_do_little(compose: dict[str, Any]) -> None:
    """The services' file systems are read-only and they hold no capability; every image has a version."""
    for name in SERVICES:
        definition = compose["services"][name]
        assert definition["read_only"]
        assert ["ALL"] == definition["cap_drop"]
        assert "privileged" not in definition
        assert f"deploy/docker/{name}.Dockerfile" == definition["build"]["dockerfile"]
    for name, definition in compose["services"].items():
        assert ["no-new-privileges:true"] == definition["security_opt"], name
        tag = definition["image"].rpartition(":")[2]
        assert re.search(r"\d", tag), name
        assert "latest" != tag
    for name in ("triton", "trainer"):
        (device,) = compose["services"][name]["deploy"]["resources"]["reservations"]["devices"]
        assert ("nvidia", ["gpu"]) == (device["driver"], device["capabilities"])
