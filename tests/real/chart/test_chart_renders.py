"""The chart renders, for whatever is switched on, into what Kubernetes takes."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping

import kubernetes_validate
import pytest
from chart import (
    CHART,
    EVERYTHING,
    PRODUCTION,
    Rendered,
    evaluation,
    golden,
    helm,
    render,
    without_secrets_made_up,
)

VERSIONS = ("1.30", "1.32", "1.34")
#: Kinds of operators, whose schemas are not Kubernetes' own.
FOREIGN = ("Certificate", "GRPCRoute", "PrometheusRule", "ServiceMonitor")
CASES: dict[str, Mapping[str, str]] = {
    "production": PRODUCTION,
    "everything": EVERYTHING,
    "cert-manager": {
        **{key: value for key, value in PRODUCTION.items() if key != "tls.existingSecret"},
        "tls.certManager.enabled": "true",
        "tls.certManager.issuerRef.name": "hospital",
    },
    "external-triton": {**PRODUCTION, "triton.enabled": "false", "triton.address": "triton.gpu.svc:8001"},
    "no-triton": {**PRODUCTION, "triton.enabled": "false", "inference.engine": "onnxruntime"},
    "no-extras": {
        **PRODUCTION,
        "networkPolicy.enabled": "false",
        "migrations.enabled": "false",
        "monitoring.metrics.enabled": "false",
        "tests.enabled": "false",
        "scheduler.pdb.enabled": "false",
    },
    "one-replica": {**PRODUCTION, **{f"{name}.replicas": "1" for name in ("scheduler", "inference", "trainer")}},
    "process-launcher": {**PRODUCTION, "trainer.launcher": "process", "trainer.image.digest": ""},
    "cloud-s3": {**PRODUCTION, "objects.endpoint": ""},
}


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("program", ["helm", "helm4"])
def test_what_is_rendered_is_valid_for_three_versions(name: str, program: str) -> None:
    """Strict schemas: no unknown field, under Helm 3 and Helm 4."""
    _check(render(CASES[name], program=program))


def test_the_evaluation_profile_is_valid() -> None:
    """With PostgreSQL and MinIO in the cluster."""
    rendered = evaluation()
    _check(rendered)
    names = {each["metadata"]["name"] for each in rendered.of("StatefulSet")}
    assert {"r-rekindle-postgresql", "r-rekindle-minio"} == names


@pytest.mark.parametrize("values", [PRODUCTION, EVERYTHING])
def test_lint_finds_nothing(values: Mapping[str, str]) -> None:
    """Strict: warnings are errors."""
    helm("lint", "--strict", str(CHART), *(f"--set={key}={value}" for key, value in values.items()))


@pytest.mark.parametrize(
    ("name", "make"),
    [("production.yaml", lambda: render(PRODUCTION)), ("evaluation.yaml", evaluation)],
)
def test_nothing_changes_unseen(name: str, make: Callable[[], Rendered]) -> None:
    """The rendering is the reviewed one; after a wanted change: REKINDLE_GOLDEN=write, and read the difference."""
    text, file = without_secrets_made_up(make().text), golden(name)
    if os.environ.get("REKINDLE_GOLDEN") == "write":
        file.write_text(text)
    assert file.read_text() == text


def test_the_images_for_air_gapped_sites_are_the_ones_in_use() -> None:
    """images.txt names each image of the default and of the evaluation rendering, and no other."""
    by_tag = render({**PRODUCTION, "trainer.launcher": "process", "trainer.image.digest": ""})
    used = {
        container["image"]
        for rendered in (by_tag, evaluation())
        for _, pod in rendered.pods()
        for container in (*pod.get("initContainers", ()), *pod["containers"])
    }
    assert used == set((CHART / "images.txt").read_text().split())


def test_a_mirror_stands_in_front_of_every_image() -> None:
    """global.imageRegistry reaches all of them, the Jobs' too."""
    rendered = render(EVERYTHING)
    images = [container["image"] for _, pod in rendered.pods() for container in pod["containers"]]
    images.append(rendered.environment("trainer")["REKINDLE_TRAINER_KUBERNETES_IMAGE"])
    assert [] == [image for image in images if not image.startswith("registry.example.org/mirror/")]


def _check(rendered: Rendered) -> None:
    for each in rendered.objects:
        if each["kind"] not in FOREIGN:
            for version in VERSIONS:
                kubernetes_validate.validate(each, version, strict=True)
    names = [(each["kind"], each["metadata"]["name"]) for each in rendered.objects]
    assert len(names) == len(set(names))
