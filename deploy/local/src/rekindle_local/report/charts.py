"""Charts of a campaign as inline SVG with real text, so that they print sharply and can be searched."""

import io
import re
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from rekindle_local.report.model import Baseline, Ledger, Report, RoundRow

#: comes with matplotlib, so texts are measured alike everywhere; the page's style sheet replaces it
FONT = "DejaVu Sans"
INK, MUTED, GRID, MINUTES = "#1d2733", "#5a6675", "#dde2e8", "#c0392b"
#: per organ in order: colours that stay apart for colour-blind readers and in grey, with different markers
ORGAN_STYLES = (("#0b6e69", "o", "-"), ("#274b9f", "s", "-"), ("#8a5a00", "D", "-"), ("#6b2f7a", "v", "-"))

_STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",
    "font.family": FONT,
    "font.size": 10.5,
    "text.color": INK,
    "axes.labelcolor": INK,
    "axes.edgecolor": "#9aa5b1",
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "axes.spines.top": False,
}


def dice_and_minutes(report: Report) -> str:
    """The paper's Fig. 4: Dice per organ over the rounds, minutes per case in red on a second axis."""
    with mpl.rc_context({**_STYLE, "svg.hashsalt": "dice-and-minutes"}):
        figure = Figure(figsize=(10.0, 4.6), layout="constrained")
        left = figure.add_subplot()
        right = left.twinx()
        rounds = [row.round for row in report.rounds]
        for organ, (colour, marker, line) in zip(report.organs, ORGAN_STYLES, strict=False):
            values = [_gap(row.dice.get(organ)) for row in report.rounds]
            left.plot(rounds, values, line, marker=marker, color=colour, lw=2, ms=6.5, label=f"Dice, {organ}")
        _draw_refused(left, report)
        _draw_minutes(right, report.rounds)
        _label_rounds(left, report.rounds)
        lines = [*left.get_lines(), *right.get_lines()]
        shown = [line for line in lines if not str(line.get_label()).startswith("_")]
        figure.legend(
            shown,
            [str(line.get_label()) for line in shown],
            loc="outside upper center",
            ncols=4,
            frameon=False,
        )
        return _svg(figure)


def minutes_compared(baseline: Baseline, ledger: Ledger) -> str:
    """Three bars: the whole set with Rekindle, with the igniter's labels only, and drawn from nothing."""
    bars = (
        ("Rekindle", ledger.minutes_total, "#0b6e69"),
        ("Igniter's labels only", baseline.minutes_no_update, "#8fa3b5"),
        ("Drawn from nothing", baseline.minutes_from_nothing, "#c9d2db"),
    )
    with mpl.rc_context({**_STYLE, "svg.hashsalt": "minutes-compared"}):
        figure = Figure(figsize=(10.0, 2.0), layout="constrained")
        axes = figure.add_subplot()
        longest = max(minutes for _, minutes, _ in bars)
        for position, (_, minutes, colour) in enumerate(bars):
            axes.barh(position, minutes, color=colour, height=0.62)
            axes.text(minutes + 0.01 * longest, position, f"{minutes:.1f}", va="center", fontweight="bold")
        axes.set_yticks(range(len(bars)), [name for name, _, _ in bars], color=INK)
        axes.invert_yaxis()
        axes.set_xlim(0.0, longest * 1.12)
        axes.set_xlabel(f"simulated minutes for all {ledger.cases} cases")
        axes.spines[["right", "left"]].set_visible(False)
        axes.tick_params(axis="y", length=0)
        return _svg(figure)


def _gap(value: float | None) -> float:
    return float("nan") if value is None else value


def _draw_refused(axes: Axes, report: Report) -> None:
    refused = [(item.round, item.candidate_dice.get("mean")) for item in report.refused]
    points = [(number, mean) for number, mean in refused if mean is not None]
    if points:
        axes.plot(
            [number for number, _ in points],
            [mean for _, mean in points],
            linestyle="none",
            marker="x",
            color=MUTED,
            ms=8,
            mew=2,
            label="mean Dice of a refused network",
        )


def _draw_minutes(axes: Axes, rows: tuple[RoundRow, ...]) -> None:
    timed = [(row.round, row.minutes_per_case) for row in rows if row.minutes_per_case is not None]
    numbers, minutes = [number for number, _ in timed], [value for _, value in timed]
    axes.plot(numbers, minutes, "--", marker="^", color=MINUTES, lw=2, ms=7, label="simulated minutes per case")
    for number, value in timed:
        axes.annotate(
            f"{value:.1f}",
            (number, value),
            (0, 8),
            textcoords="offset points",
            ha="center",
            color=MINUTES,
            fontsize=9.5,
        )
    axes.set_ylim(0.0, max(minutes, default=1.0) * 1.35)
    axes.set_ylabel("simulated minutes per case", color=MINUTES)
    axes.tick_params(axis="y", colors=MINUTES)
    axes.spines["right"].set_color(MINUTES)


def _label_rounds(axes: Axes, rows: tuple[RoundRow, ...]) -> None:
    names = [f"{f'round {row.round}' if row.round else 'igniter'}\n({row.cases})" for row in rows]
    axes.set_xticks([row.round for row in rows], names, color=INK)
    axes.set_xlim(-0.35, rows[-1].round + 0.35)
    low = min((value for line in axes.get_lines() for value in _finite(line.get_ydata())), default=0.0)
    axes.set_ylim(max(0.0, int(low * 10.0 - 0.5) / 10.0), 1.0)
    axes.set_ylabel("Dice on the held-out cases")
    axes.grid(axis="y", color=GRID, lw=0.8)
    axes.set_axisbelow(True)


def _finite(values: Any) -> list[float]:
    return [float(value) for value in values if value == value]


def _svg(figure: Figure) -> str:
    """The figure as an <svg> element without prologue, metadata or namespace addresses (HTML needs none)."""
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", metadata=dict.fromkeys(("Date", "Creator", "Format", "Type")))
    text = buffer.getvalue()
    element = text[text.index("<svg") :]
    element = re.sub(r"<metadata>.*?</metadata>", "", element, flags=re.DOTALL)
    return re.sub(r'\s+xmlns(:\w+)?="[^"]*"', "", element)
