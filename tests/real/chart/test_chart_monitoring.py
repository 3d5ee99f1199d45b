"""How Prometheus reaches the components: a Service of its own for the metrics of each, and one ServiceMonitor."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import yaml
from chart import CHART, EVERYTHING, Rendered, render

COMPONENTS = {"scheduler", "inference", "trainer", "triton"}
PROMETHEUS = {"networkPolicy.monitoring[0].namespaceSelector.matchLabels.team": "monitoring"}


def _selects(labels: Mapping[str, str], each: Mapping[str, Any]) -> bool:
    return labels.items() <= each["metadata"]["labels"].items()


def _scraped(rendered: Rendered) -> list[Mapping[str, Any]]:
    """The Services that the ServiceMonitor selects."""
    (monitor,) = rendered.of("ServiceMonitor")
    labels = monitor["spec"]["selector"]["matchLabels"]
    return [service for service in rendered.of("Service") if _selects(labels, service)]


def _pod_of(rendered: Rendered, service: Mapping[str, Any]) -> Mapping[str, Any]:
    """The template of the pods behind a Service."""
    (template,) = (
        each["spec"]["template"]
        for each in rendered.of("Deployment")
        if _selects(service["spec"]["selector"], each["spec"]["template"])
    )
    return template


def test_every_component_is_scraped_once() -> None:
    """The monitor's port is one of each selected Service, and leads to the port that the container calls metrics."""
    rendered = render(EVERYTHING)
    (endpoint,) = rendered.one("ServiceMonitor", "r-rekindle")["spec"]["endpoints"]
    found = {}
    for service in _scraped(rendered):
        (port,) = (port for port in service["spec"]["ports"] if port["name"] == endpoint["port"])
        pod = _pod_of(rendered, service)
        (container,) = pod["spec"]["containers"]
        ports = {each["name"]: each["containerPort"] for each in container["ports"]}
        assert port["port"] == ports[port["targetPort"]], service["metadata"]["name"]
        found[pod["metadata"]["labels"]["app.kubernetes.io/component"]] = service
    assert COMPONENTS == set(found)
    assert {("ClusterIP", "None")} == {(each["spec"]["type"], each["spec"]["clusterIP"]) for each in found.values()}


def test_metrics_stay_inside_whatever_the_services_become() -> None:
    """A load balancer in front of the API leads to gRPC alone."""
    rendered = render({**EVERYTHING, **{f"{name}.service.type": "LoadBalancer" for name in COMPONENTS - {"triton"}}})
    outside = [each for each in rendered.of("Service") if each["spec"].get("type") == "LoadBalancer"]
    assert 3 == len(outside)
    assert {"grpc"} == {port["name"] for each in outside for port in each["spec"]["ports"]}


def test_a_prometheus_may_look_in_a_namespace_of_its_own() -> None:
    """The monitor is made where it looks, with the labels that it selects by, and names the release's namespace."""
    elsewhere = {
        "monitoring.serviceMonitor.namespace": "monitoring",
        "monitoring.serviceMonitor.labels.release": "prometheus",
        "monitoring.serviceMonitor.interval": "1m",
        "monitoring.serviceMonitor.scrapeTimeout": "20s",
    }
    (monitor,) = render({**EVERYTHING, **elsewhere}).of("ServiceMonitor")
    assert ("monitoring", "prometheus") == (monitor["metadata"]["namespace"], monitor["metadata"]["labels"]["release"])
    assert {"matchNames": ["ns"]} == monitor["spec"]["namespaceSelector"]
    (endpoint,) = monitor["spec"]["endpoints"]
    assert ("1m", "20s") == (endpoint["interval"], endpoint["scrapeTimeout"])
    (usual,) = render(EVERYTHING).of("ServiceMonitor")
    assert "namespace" not in usual["metadata"]


def test_only_who_is_named_reaches_the_metrics() -> None:
    """networkPolicy.monitoring opens the port of every component, and without it nobody gets in."""
    opened, closed = render({**EVERYTHING, **PROMETHEUS}), render(EVERYTHING)
    for component in COMPONENTS:
        name = f"r-rekindle-{component}"
        assert {"team"} == set(_who_reaches_metrics(opened.one("NetworkPolicy", name)))
        assert not _who_reaches_metrics(closed.one("NetworkPolicy", name))


def test_each_alert_on_scraping_names_one_service() -> None:
    """By the label `service`, which the operator takes from the Service's name."""
    names = [each["metadata"]["name"] for each in _scraped(render(EVERYTHING))]
    (alert,) = [each for each in _alerts() if each["alert"] == "RekindleServiceDown"]
    patterns = re.findall(r'service=~"([^"]+)"', alert["expr"])
    watched = [[name for name in names if re.fullmatch(pattern, name)] for pattern in patterns]
    assert [[f"r-rekindle-{name}-metrics"] for name in ("scheduler", "inference", "trainer")] == watched


def _who_reaches_metrics(policy: Mapping[str, Any]) -> list[str]:
    return [
        label
        for rule in policy["spec"]["ingress"]
        if {"metrics"} == {port["port"] for port in rule["ports"]}
        for peer in rule["from"]
        for label in peer["namespaceSelector"]["matchLabels"]
    ]


def _alerts() -> list[dict[str, Any]]:
    return yaml.safe_load((CHART / "files" / "alerts.yaml").read_text())
