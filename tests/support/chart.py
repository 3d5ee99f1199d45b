"""The chart, rendered by a real Helm."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from servers.tools import ROOT, installed

CHART = ROOT / "deploy" / "helm" / "rekindle"
DIGEST = "sha256:" + "a" * 64
#: The least that a production release names.
PRODUCTION = {
    "auth.existingSecret": "callers",
    "auth.serviceTokenSecret": "service-token",
    "database.existingSecret": "database",
    "objects.url": "s3://rekindle",
    "objects.endpoint": "https://s3.example.org",
    "objects.existingSecret": "objects",
    "tls.existingSecret": "tls",
    "trainer.image.digest": DIGEST,
}
EVALUATION = {"auth.existingSecret": "callers", "auth.serviceTokenSecret": "service-token"}
#: Everything that is switched off by default.
EVERYTHING = {
    **PRODUCTION,
    "tls.requireClientCertificate": "true",
    "tls.certificateRoles": "viewer",
    "objects.caConfigMap": "objects-ca",
    "objects.encryption": "s3",
    "objects.publicEndpoint": "https://objects.example.org",
    "inference.autoscaling.enabled": "true",
    "trainer.jobs.nodes": "2",
    "trainer.jobs.gpu.count": "4",
    "trainer.jobs.kueueQueue": "gpus",
    "trainer.jobs.runtimeClassName": "nvidia",
    "trainer.jobs.priorityClassName": "batch",
    "exposure.ingress.enabled": "true",
    "exposure.ingress.host": "rekindle.example.org",
    "exposure.grpcRoute.enabled": "true",
    "exposure.grpcRoute.parentRefs[0].name": "gateway",
    "monitoring.serviceMonitor.enabled": "true",
    "monitoring.prometheusRule.enabled": "true",
    "monitoring.dashboard.enabled": "true",
    "global.imageRegistry": "registry.example.org/mirror",
    "global.imagePullSecrets[0]": "pull",
    "tests.tokenSecret": "tester",
}


class RenderError(Exception):
    """Helm refused; the text is what it said."""


@dataclass(frozen=True)
class Rendered:
    """The objects of one rendering."""

    text: str
    objects: tuple[Mapping[str, Any], ...]

    def of(self, kind: str) -> list[Mapping[str, Any]]:
        return [each for each in self.objects if each["kind"] == kind]

    def one(self, kind: str, name: str) -> Mapping[str, Any]:
        return next(each for each in self.of(kind) if each["metadata"]["name"] == name)

    def pods(self) -> Iterator[tuple[str, Mapping[str, Any]]]:
        """Name of the object and pod spec, of whatever makes pods."""
        for each in self.objects:
            spec = each.get("spec", {})
            if each["kind"] == "Pod":
                yield each["metadata"]["name"], spec
            elif each["kind"] in ("Deployment", "StatefulSet", "Job"):
                yield each["metadata"]["name"], spec["template"]["spec"]

    def environment(self, component: str) -> dict[str, Any]:
        """Variable -> value, or where it comes from, of a service's container."""
        pod = self.one("Deployment", f"r-rekindle-{component}")["spec"]["template"]["spec"]
        return {item["name"]: item.get("value", item.get("valueFrom")) for item in pod["containers"][0]["env"]}


def helm(*arguments: str, program: str = "helm") -> str:
    """What Helm prints; RenderError."""
    command = [str(installed(program) / "helm" / "helm"), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    if done.returncode:
        raise RenderError(done.stderr)
    return done.stdout


def render(
    values: Mapping[str, str] = PRODUCTION, *files: str, program: str = "helm", json_values: Sequence[str] = ()
) -> Rendered:
    """Release `r` in namespace `ns`; `files` are values files of the chart, `json_values` go to --set-json."""
    options = [f"--set={key}={value}" for key, value in values.items()]
    options += [f"--values={CHART / name}" for name in files]
    options += [f"--set-json={value}" for value in json_values]
    text = helm("template", "r", str(CHART), "--namespace", "ns", *options, program=program)
    return Rendered(text, tuple(each for each in yaml.safe_load_all(text) if each))


def evaluation(**values: str) -> Rendered:
    return render({**EVALUATION, **values}, "values-evaluation.yaml")


def without_secrets_made_up(text: str) -> str:
    """A rendering whose random passwords are taken out, to compare it."""
    lines = []
    for line in text.splitlines():
        key = line.strip().split(":", 1)[0]
        is_random = key in ("postgresql-password", "access-key", "secret-key") and len(line.split(": ", 1)) == 2
        is_url = key.endswith("-url") and "postgresql://" in line
        lines.append(line.split(": ")[0] + ": (random)" if is_random or is_url else line)
    return "\n".join(lines) + "\n"


def golden(name: str) -> Path:
    return Path(__file__).parents[1] / "real" / "chart" / "golden" / name
