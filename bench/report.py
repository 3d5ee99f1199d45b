"""What was measured, as a table for people and as JSON."""

from __future__ import annotations

import json
import os
import platform
import sys
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from bench.measure import Figure, Row

LIBRARIES = ("torch", "onnxruntime", "SimpleITK", "numpy", "scipy", "grpcio", "SQLAlchemy")


def machine() -> dict[str, Any]:
    """What figures depend on besides the code."""
    return {
        "processor": _processor(),
        "cores": os.cpu_count(),
        "load": round(os.getloadavg()[0], 2),
        "system": platform.platform(),
        "python": platform.python_version(),
        "libraries": {name: version(name) for name in LIBRARIES},
    }


def print_table(subject: str, rows: Sequence[Row]) -> None:
    """Medians, with the range of the repeats where there are several."""
    table = Table(title=subject, title_justify="left", title_style="bold")
    table.add_column("what", overflow="fold")
    table.add_column("unit")
    table.add_column("Rekindle", justify="right")
    table.add_column("instead", justify="right")
    table.add_column("instead is", overflow="fold")
    table.add_column("times better", justify="right")
    for row in rows:
        table.add_row(
            row.what, row.unit, _number(row.rekindle), _number(row.other), row.instead, f"{row.times_better:.2f}"
        )
    # Lines of a log may be as long as they need to be.
    Console(width=None if sys.stdout.isatty() else 150).print(table)


def write_json(
    path: Path,
    before: Mapping[str, Any],
    rows: Mapping[str, Sequence[Row]],
    missing: Mapping[str, str],
    *,
    quick: bool,
) -> None:
    """What was measured, by subject, and what was not and why. `before`: the machine before anything ran."""
    path.parent.mkdir(parents=True, exist_ok=True)
    content = {
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
        "quick": quick,
        "machine": dict(before),
        "subjects": {name: [row.to_dict() for row in found] for name, found in rows.items()},
        "not_measured": dict(missing),
    }
    path.write_text(json.dumps(content, indent=2) + "\n")


def _number(figure: Figure) -> str:
    low, value, high = (
        f"{each:.3g}" if each < 100 else f"{each:,.0f}" for each in (figure.low, figure.value, figure.high)
    )
    return value if low == high else f"{value} ({low} to {high})"


def _processor() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        for line in cpuinfo.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
