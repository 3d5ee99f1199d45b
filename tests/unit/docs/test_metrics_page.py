"""docs/operations/monitoring.md and alerts.md name what there is: each metric, each alert, and no other."""

from __future__ import annotations

import re
from pathlib import Path

import yaml

ROOT = Path(__file__).parents[3]
GUIDE = ROOT / "docs" / "operations"
_ADAPTERS = "services/*/src/*/adapters/prometheus.py"


def test_every_metric_is_on_the_page() -> None:
    """Names in the code, counters with the ending that Prometheus shows, are the first column of the page's tables."""
    made: set[str] = set()
    for source in ROOT.glob(_ADAPTERS):
        for kind, name in re.findall(r'(\w+)\(\s*"(rekindle_\w+)"', source.read_text()):
            made.add(f"{name}_total" if kind == "Counter" else name)
    page = set(re.findall(r"^\| `(rekindle_\w+)`", (GUIDE / "monitoring.md").read_text(), re.MULTILINE))
    assert len(made) > 20
    assert made == page


def test_every_alert_is_on_the_page_with_its_severity() -> None:
    """In the table, and in a section of its own that says what to do."""
    rules = yaml.safe_load((ROOT / "deploy" / "helm" / "rekindle" / "files" / "alerts.yaml").read_text())
    page = (GUIDE / "alerts.md").read_text()
    listed = dict(re.findall(r"^\| \[(\w+)\]\(#\w+\) \| (\w+) \|", page, re.MULTILINE))
    assert {rule["alert"]: rule["labels"]["severity"] for rule in rules} == listed
    for section in re.split(r"^## ", page, flags=re.MULTILINE)[1:]:
        assert all(word in section for word in ("**Means**", "**Look**", "**Do**"))
    assert sorted(listed) == sorted(re.findall(r"^## (\w+)", page, re.MULTILINE))
