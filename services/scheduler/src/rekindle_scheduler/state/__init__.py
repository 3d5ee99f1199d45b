"""The scheduler's state in SQL: a repository for each noun, and the unit of work that holds them together."""

from rekindle_scheduler.state.cases import CaseFilter
from rekindle_scheduler.state.submissions import SubmissionFilter
from rekindle_scheduler.state.tallies import CaseCounts, Overview
from rekindle_scheduler.state.unit_of_work import State, UnitOfWork, database_now, open_state

__all__ = [
    "CaseCounts",
    "CaseFilter",
    "Overview",
    "State",
    "SubmissionFilter",
    "UnitOfWork",
    "database_now",
    "open_state",
]
