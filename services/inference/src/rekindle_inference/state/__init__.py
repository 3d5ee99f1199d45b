"""Inference's state in SQL: a repository for each noun, and the unit of work that holds them together."""

from rekindle_inference.state.inventory import Inventory, StoredVolume
from rekindle_inference.state.purges import PurgeTarget
from rekindle_inference.state.unit_of_work import State, UnitOfWork

__all__ = ["Inventory", "PurgeTarget", "State", "StoredVolume", "UnitOfWork"]
