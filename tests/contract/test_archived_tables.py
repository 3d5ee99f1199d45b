"""Every table of every service is in a project's archive, or left out on purpose."""

from __future__ import annotations

from typing import Any

import pytest
from rekindle_inference.adapters import archive as inference
from rekindle_inference.state import tables as inference_tables
from rekindle_scheduler.state import archive as scheduler
from rekindle_scheduler.state import tables as scheduler_tables
from rekindle_trainer.state import archive as trainer
from rekindle_trainer.state import tables as trainer_tables


@pytest.mark.parametrize(
    ("archive", "tables"),
    [(scheduler, scheduler_tables), (inference, inference_tables), (trainer, trainer_tables)],
    ids=["scheduler", "inference", "trainer"],
)
def test_no_table_is_forgotten(archive: Any, tables: Any) -> None:
    """A new table gets a line in one of the two lists."""
    archived = {what.table.name for what in archive._TABLES}
    assert archived | set(archive.LEFT_OUT) == set(tables.metadata.tables)
    assert archived & set(archive.LEFT_OUT) == set()


@pytest.mark.parametrize("archive", [scheduler, inference, trainer], ids=["scheduler", "inference", "trainer"])
def test_parents_come_before_children(archive: Any) -> None:
    """Rows are added in this order, and the database checks what they refer to."""
    seen: set[str] = set()
    for what in archive._TABLES:
        parents = {key.column.table.name for key in what.table.foreign_keys} - {what.table.name}
        assert parents <= seen
        seen.add(what.table.name)
