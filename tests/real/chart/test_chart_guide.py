"""The values that the operator's guide shows are values that the chart takes."""

from __future__ import annotations

import re
from pathlib import Path

import yaml
from chart import CHART, DIGEST, PRODUCTION, helm
from servers.tools import ROOT

GUIDE = ROOT / "docs" / "operations"


def values_of(page: str) -> str:
    """The last block of YAML in a page."""
    return re.findall(r"```yaml\n(.*?)```", (GUIDE / page).read_text(), re.DOTALL)[-1].replace("sha256:...", DIGEST)


def rendered(folder: Path, page: str, **values: str) -> list[dict]:
    """Of a release called `rekindle`, as the guide calls it."""
    file = folder / "site.yaml"
    file.write_text(values_of(page))
    options = [f"--set={key}={value}" for key, value in values.items()]
    text = helm("template", "rekindle", str(CHART), "--namespace", "rekindle", f"--values={file}", *options)
    return [each for each in yaml.safe_load_all(text) if each]


def test_the_installation_page_needs_no_more_than_its_own_values(tmp_path: Path) -> None:
    """They render, the Services have the names that its certificate must have, and its Secrets are the ones used."""
    objects = rendered(tmp_path, "install.md")
    services = {each["metadata"]["name"] for each in objects if each["kind"] == "Service"}
    assert {"rekindle-scheduler", "rekindle-inference", "rekindle-trainer"} <= services
    made = set(re.findall(r"create secret generic (\S+)", (GUIDE / "install.md").read_text()))
    used = set(
        re.findall(r"(?:secretName|name): (rekindle-(?:database|objects|tls|callers|\w+-token))\b", str_of(objects))
    )
    assert made == used


def test_the_kueue_page_queues_the_jobs(tmp_path: Path) -> None:
    """Its values, beside those of an installation, reach the trainer."""
    objects = rendered(tmp_path, "kueue.md", **PRODUCTION)
    (trainer,) = [e for e in objects if e["kind"] == "Deployment" and e["metadata"]["name"] == "rekindle-trainer"]
    environment = {e["name"]: e.get("value") for e in trainer["spec"]["template"]["spec"]["containers"][0]["env"]}
    assert "rekindle" == environment["REKINDLE_TRAINER_KUBERNETES_QUEUE"]
    assert "0" == environment["REKINDLE_TRAINER_KUBERNETES_UNSCHEDULABLE_S"]


def test_the_monitoring_page_lets_prometheus_in(tmp_path: Path) -> None:
    """Its values make a ServiceMonitor where that Prometheus looks, and open the metrics to its namespace."""
    objects = rendered(tmp_path, "monitoring.md", **PRODUCTION)
    (monitor,) = [each for each in objects if each["kind"] == "ServiceMonitor"]
    assert ("monitoring", "prometheus") == (monitor["metadata"]["namespace"], monitor["metadata"]["labels"]["release"])
    policies = [each for each in objects if each["kind"] == "NetworkPolicy" and "metrics" in str_of([each])]
    assert {"rekindle-scheduler", "rekindle-inference", "rekindle-trainer", "rekindle-triton"} == {
        each["metadata"]["name"] for each in policies
    }


def str_of(objects: list[dict]) -> str:
    return yaml.safe_dump_all(objects)
