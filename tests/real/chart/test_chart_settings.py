"""What the chart says to the services is what they understand, and all that they understand can be said."""

from __future__ import annotations

import json
import re

import pytest
import yaml
from chart import CHART, EVERYTHING, PRODUCTION, render
from chart_settings import SETTINGS, free_settings
from prometheus_client import CollectorRegistry
from rekindle_scheduler.adapters.prometheus import SchedulerMetrics
from rekindle_servicekit.permissions import PERMISSIONS
from rekindle_servicekit.settings import environment_variables


@pytest.mark.parametrize("component", SETTINGS)
def test_every_variable_in_the_chart_is_a_setting(component: str) -> None:
    """With everything switched on; a variable that is not known would keep the service from starting."""
    known = set(environment_variables(SETTINGS[component]))
    assert set() == set(render(EVERYTHING).environment(component)) - known


@pytest.mark.parametrize("component", SETTINGS)
def test_every_setting_can_be_said_in_one_place(component: str) -> None:
    """By a value of its own, or under `settings`: the schema lists the rest, with the services' own words.

    After a change of settings: python tests/support/chart_settings.py
    """
    schema = json.loads((CHART / "values.schema.json").read_text())
    assert free_settings(component) == schema["properties"][component]["properties"]["settings"]["properties"]


def test_settings_reach_the_service() -> None:
    """A free setting becomes its variable, in the service's spelling."""
    rendered = render({**PRODUCTION, "inference.settings.max_voxels": "1000"})
    assert "1000" == rendered.environment("inference")["REKINDLE_INFERENCE_MAX_VOXELS"]


def test_routes_name_every_service_of_the_api() -> None:
    """Ingress and GRPCRoute tell services apart by name; those that all three have cannot be routed by it."""
    rendered = render(EVERYTHING)
    served = {method.split("/")[1] for method in PERMISSIONS if method.startswith("/rekindle.api.")}
    own = {name for name in served if not name.startswith("rekindle.api.common.")}
    paths = {path["path"] for path in rendered.of("Ingress")[0]["spec"]["rules"][0]["http"]["paths"]}
    routed = {
        match["method"]["service"] for rule in rendered.of("GRPCRoute")[0]["spec"]["rules"] for match in rule["matches"]
    }
    assert (own, {f"/{name}" for name in own}) == (routed, paths)


def test_alerts_and_dashboard_ask_for_metrics_that_exist() -> None:
    """Each rekindle_* name in them is one that a service tells."""
    text = (CHART / "files" / "alerts.yaml").read_text() + (CHART / "files" / "dashboard.json").read_text()
    asked = set(re.findall(r"rekindle_[a-z_]+", text))
    assert set() == {name for name in asked if re.sub("_(bucket|count|sum|total)$", "", name) not in _told()}


def test_every_alert_says_what_to_do() -> None:
    """An alert without a remedy only wakes people."""
    alerts = yaml.safe_load((CHART / "files" / "alerts.yaml").read_text())
    assert [] == [alert["alert"] for alert in alerts if not alert["annotations"].get("action")]


def _told() -> set[str]:
    registry = CollectorRegistry()
    SchedulerMetrics(registry)
    from_code = {family.name for family in registry.collect()}
    sources = [
        path.read_text()
        for package in ("scheduler", "inference", "trainer")
        for path in (CHART.parents[2] / "services" / package / "src").rglob("prometheus.py")
    ]
    return from_code | set(re.findall(r'"(rekindle_[a-z_]+)"', "".join(sources)))
