"""What a real API server says to the rendered objects before it would take them: a server-side apply, as a trial."""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
from chart import EVERYTHING, Rendered, evaluation, render
from kubernetes import client, config
from kubernetes.dynamic import DynamicClient
from kubernetes.dynamic.exceptions import DynamicApiError, ResourceNotFoundError

#: Kinds that the server here, 1.20, knows in no version of today, and those of operators.
UNKNOWN = {
    "Certificate",
    "GRPCRoute",
    "HorizontalPodAutoscaler",
    "PodDisruptionBudget",
    "PrometheusRule",
    "ServiceMonitor",
}
NAMESPACE = "admission"


@pytest.fixture(scope="module")
def api(kubeconfig: Path) -> DynamicClient:
    plain = config.new_client_from_config(str(kubeconfig))
    client.CoreV1Api(plain).create_namespace({"metadata": {"name": NAMESPACE}})
    return DynamicClient(plain)


@pytest.mark.parametrize("make", [render, lambda: render(EVERYTHING), evaluation], ids=["default", "all", "evaluation"])
def test_every_object_is_admitted(api: DynamicClient, make: Callable[[], Rendered]) -> None:
    """No field is unknown, no value is wrong, nothing that belongs together is apart."""
    refused, unknown = [], set()
    for each in make().objects:
        try:
            _apply(api, each)
        except ResourceNotFoundError:
            unknown.add(each["kind"])
        except DynamicApiError as error:
            refused.append((each["kind"], each["metadata"]["name"], error.summary()))
    assert [] == refused
    assert unknown <= UNKNOWN


def test_what_is_wrong_is_refused(api: DynamicClient) -> None:
    """The trial is one: a field that does not exist, and a selector that misses its own pods."""
    (deployment, *_) = render().of("Deployment")
    misspelt, apart = deepcopy(dict(deployment)), deepcopy(dict(deployment))
    misspelt["spec"]["template"]["spec"]["containers"][0]["imagePullPolice"] = "Always"
    apart["spec"]["selector"]["matchLabels"]["app.kubernetes.io/component"] = "other"
    for wrong, said in ((misspelt, "imagePullPolice"), (apart, "selector")):
        with pytest.raises(DynamicApiError) as caught:
            _apply(api, wrong)
        assert said in caught.value.summary()


def _apply(api: DynamicClient, manifest: Any) -> None:
    body = _as_of_1_20(deepcopy(dict(manifest)))
    resource = api.resources.get(api_version=body["apiVersion"], kind=body["kind"])
    name = body["metadata"]["name"]
    resource.server_side_apply(
        body, name=name, namespace=NAMESPACE, field_manager="trial", query_params=[("dryRun", "All")]
    )


def _as_of_1_20(manifest: dict[str, Any]) -> dict[str, Any]:
    """Its probes do not speak gRPC yet; everything else of the chart is as old."""
    pod = manifest.get("spec", {}).get("template", {}).get("spec", {})
    for container in pod.get("containers", ()):
        for name in ("startupProbe", "readinessProbe", "livenessProbe"):
            if "grpc" in container.get(name, {}):
                container[name]["tcpSocket"] = container[name].pop("grpc")
    return manifest
