"""The report of a campaign: `report.json` for programs and `report.html` for people."""

from rekindle_local.report.model import (
    Baseline,
    CaseDetail,
    Ledger,
    Refusal,
    Report,
    Retrospective,
    RoundRow,
    TimeModelCost,
)
from rekindle_local.report.slices import CaseFigure, Figures
from rekindle_local.report.write import write_report

__all__ = [
    "Baseline",
    "CaseDetail",
    "CaseFigure",
    "Figures",
    "Ledger",
    "Refusal",
    "Report",
    "Retrospective",
    "RoundRow",
    "TimeModelCost",
    "write_report",
]
