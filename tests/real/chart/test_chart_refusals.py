"""Wrong values are refused before anything is installed, in words."""

from __future__ import annotations

import pytest
from chart import CHART, PRODUCTION, RenderError, helm, render

#: Path -> wrong value, one or more of each group of values.
WRONG = {
    "global.imageRegistri": "x",
    "global.imagePullSecrets[0]": "Not A Name",
    "nameOverride": "Upper",
    "installationId": "With Space",
    "database.existingSecrets": "x",
    "database.keys.scheduler": "no spaces please",
    "objects.url": "http://bucket",
    "objects.endpoint": "s3.example.org",
    "objects.encryption": "rot13",
    "tls.enabled": "maybe",
    "tls.certManager.issuerRef.kind": "Cluster",
    "auth.tokens": "x",
    "migrations.backoffLimit": "-1",
    "scheduler.replicas": "two",
    "scheduler.settings.log_levle": "INFO",
    "scheduler.settings.database_url": "sqlite:///x",
    "scheduler.image.digest": "sha256:123",
    "scheduler.image.pullPolicy": "Sometimes",
    "scheduler.resources.limits.memory": "much",
    "inference.engine": "tensorflow",
    "inference.port": "70000",
    "inference.settings.max_file_byte": "1",
    "inference.autoscaling.minReplicas": "0",
    "trainer.launcher": "slurm",
    "trainer.jobs.nodes": "0",
    "trainer.jobs.gpu.resource": "gpu",
    "trainer.jobs.tolerations[0].operator": "Is",
    "triton.accelerator": "magic",
    "triton.address": "triton",
    "triton.extraArgs[0]": "no-dashes",
    "networkPolicy.databasePort": "0",
    "exposure.ingress.host": "not a host",
    "monitoring.serviceMonitor.interval": "often",
    "evaluation.postgresql.storage": "a lot",
    "tests.enable": "true",
}


@pytest.mark.parametrize("path", WRONG)
def test_a_wrong_value_is_refused_by_its_name(path: str) -> None:
    """The schema is closed: the message names the place."""
    with pytest.raises(RenderError) as caught:
        render({**PRODUCTION, path: WRONG[path]})
    parts = path.replace("[", ".").replace("]", "").split(".")
    assert any(part in str(caught.value) for part in parts[-2:]), caught.value


#: Change of the production values -> what is said. None takes a value away.
CONTRADICTIONS: list[tuple[dict[str, str | None], str]] = [
    ({"database.existingSecret": None}, "database.existingSecret"),
    ({"objects.url": None}, "objects.url"),
    ({"tls.existingSecret": None}, "TLS has no certificate"),
    ({"tls.certManager.enabled": "true", "tls.certManager.issuerRef.name": "i"}, "two sources"),
    ({"tls.existingSecret": None, "tls.certManager.enabled": "true"}, "issuerRef.name"),
    ({"auth.existingSecret": None}, "Nobody could be told apart"),
    ({"auth.serviceTokenSecret": None}, "auth.serviceTokenSecret"),
    ({"tls.enabled": "false"}, "plain text"),
    ({"tls.enabled": "false", "exposure.ingress.enabled": "true", "exposure.ingress.host": "h"}, "from outside"),
    ({"tls.enabled": "false", "scheduler.service.type": "LoadBalancer"}, "from outside"),
    ({"auth.existingSecret": None, "exposure.ingress.enabled": "true", "exposure.ingress.host": "h"}, "by anybody"),
    ({"exposure.ingress.enabled": "true"}, "exposure.ingress.host"),
    ({"exposure.grpcRoute.enabled": "true"}, "parentRefs"),
    ({"triton.enabled": "false"}, "there is none"),
    ({"triton.address": "triton:8001"}, "two Tritons"),
    ({"trainer.image.digest": None}, "by digest"),
    ({"monitoring.serviceMonitor.enabled": "true", "monitoring.metrics.enabled": "false"}, "nothing to scrape"),
]


@pytest.mark.parametrize(("change", "said"), CONTRADICTIONS)
def test_values_that_contradict_each_other_are_refused(change: dict[str, str | None], said: str) -> None:
    """Above all: no API in plain text or without callers, and none without a place for its data."""
    values = {key: value for key, value in {**PRODUCTION, **change}.items() if value is not None}
    with pytest.raises(RenderError, match=said):
        render(values)


def test_a_name_too_long_for_objects_is_refused() -> None:
    """Made of namespace and release it could only be cut, and two releases would share what lies under it."""
    values = [f"--set={key}={value}" for key, value in PRODUCTION.items()]
    names = ("template", "campaign", str(CHART), "--namespace", "radiology-of-the-hospital", *values)
    with pytest.raises(RenderError, match="longer than 32 characters: name installationId"):
        helm(*names)
    assert 'value: "hospital-a"' in helm(*names, "--set=installationId=hospital-a")
    with pytest.raises(RenderError, match="installationId"):
        helm(*names, f"--set=installationId={'a' * 33}")
