"""The trainer's state in SQL: one unit of work over runs, attempts, metrics and limits."""

from rekindle_trainer.state.unit_of_work import MIGRATIONS, State, UnitOfWork

__all__ = ["MIGRATIONS", "State", "UnitOfWork"]
