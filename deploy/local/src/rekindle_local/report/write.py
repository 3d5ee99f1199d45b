"""Writes `report.json` and the self-contained `report.html`."""

import json
import math
from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from rekindle_local.report import charts
from rekindle_local.report.model import Report
from rekindle_local.report.slices import OVERLAP, PREDICTION, TRUTH, Figures, slices_png
from rekindle_local.report.summary import summary


def write_report(report: Report, figures: Figures | None, out_dir: Path) -> tuple[Path, Path]:
    """Write both files into `out_dir` and return their paths (json, html).

    The HTML holds its figures and styles itself and refers to nothing outside. Without `figures` it has
    no slices.
    """
    out_dir.mkdir(parents=True, exist_ok=True)
    json_path, html_path = out_dir / "report.json", out_dir / "report.html"
    content = json.dumps(report.to_dict(), indent=2, ensure_ascii=False, allow_nan=False)
    json_path.write_text(content + "\n", encoding="utf-8")
    html_path.write_text(render_html(report, figures), encoding="utf-8")
    return json_path, html_path


def render_html(report: Report, figures: Figures | None) -> str:
    """The page as text."""
    environment = Environment(
        loader=PackageLoader("rekindle_local.report", "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(dice=_dice, minutes=_minutes, millimetres=_minutes, percent=_percent, duration=_duration)
    shown = figures if figures and figures.cases else None
    return environment.get_template("report.html.j2").render(
        report=report,
        summary=summary(report),
        fig_rounds=Markup(charts.dice_and_minutes(report)),
        fig_minutes=Markup(charts.minutes_compared(report.baseline, report.ledger)),
        fig_slices=slices_png(shown) if shown else None,
        legend=_legend(shown) if shown else [],
        refusals={item.round: item.reason for item in report.refused},
    )


def _legend(figures: Figures) -> list[tuple[str, str]]:
    entries = [(TRUTH, "truth that the model missed")]
    for order, organ in enumerate(figures.organs):
        entries.append((PREDICTION[order], f"{organ}: predicted, but not truth"))
        entries.append((OVERLAP[order], f"{organ}: prediction and truth overlap"))
    return entries


def _undefined(value: float | None) -> bool:
    return value is None or not math.isfinite(value)


def _dice(value: float | None) -> str:
    return "–" if value is None or _undefined(value) else f"{value:.3f}"


def _minutes(value: float | None) -> str:
    return "–" if value is None or _undefined(value) else f"{value:.1f}"


def _percent(value: float) -> str:
    whole = round(100.0 * value)  # an int, so that a small loss is "0 %" and not "−0 %"
    return f"{whole} %".replace("-", "−")


def _duration(seconds: float | None) -> str:
    if seconds is None or _undefined(seconds):
        return "–"
    if seconds < 100.0:
        return f"{seconds:.0f} s"
    return f"{seconds / 60.0:.1f} min"
