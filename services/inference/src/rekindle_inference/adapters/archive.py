"""What inference keeps of a project, for its archive."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import sqlalchemy as sa
from rekindle_servicekit import layout
from rekindle_servicekit.layout import PackageKeys
from rekindle_servicekit.objects import Objects
from rekindle_servicekit.project_archive import ProjectArchive, Tables
from rekindle_servicekit.project_rows import ProjectTable, Row
from rekindle_servicekit.workers import Cancellation

from rekindle_inference.ports import Engine
from rekindle_inference.state import tables
from rekindle_inference.state.models import model_of, prediction_of
from rekindle_inference.state.volumes import receipt_of, volume_of
from rekindle_inference.usecases.packages import prove_package, read_package

#: Uploads and segmentations under way belong to the installation that takes them, as do the answers that it keeps.
LEFT_OUT = ("requests", "uploads", "upload_parts", "segmentations")


def project_archive(engine: sa.Engine, objects: Objects, serving: Engine, smoke_tolerance: float) -> ProjectArchive:
    """Volumes with their masks and receipts, models, predictions, results."""
    return ProjectArchive(
        service="inference",
        engine=engine,
        tables=_TABLES,
        objects=objects,
        keys_of=_keys_of,
        prove=partial(_prove, objects, serving, smoke_tolerance),
        read_back=_read_back,
    )


def _whole(table: sa.Table, *order_by: sa.ColumnElement[object]) -> ProjectTable:
    return ProjectTable(table=table, of_project=lambda project: table.c.project_id == project, order_by=order_by)


def _predictions(project: str) -> sa.ColumnElement[bool]:
    own = sa.select(tables.models.c.model_version_id).where(tables.models.c.project_id == project)
    return tables.predictions.c.model_version_id.in_(own)


#: Parents before children; images before the masks that lie on them.
_TABLES = (
    _whole(
        tables.volumes, sa.case((tables.volumes.c.image_volume_id.is_(None), 0), else_=1), tables.volumes.c.volume_id
    ),
    _whole(tables.volume_sources),
    _whole(tables.receipts),
    _whole(tables.models),
    _whole(tables.active_models),
    ProjectTable(
        table=tables.predictions, of_project=_predictions, parent=("model_version_id", "models", "model_version_id")
    ),
    _whole(tables.slice_ranks),
    _whole(tables.results),
    _whole(tables.result_cursors),
    _whole(tables.quality_limits),
    _whole(tables.purged_volumes),
    _whole(tables.purged_snapshots),
)


def _keys_of(found: Tables) -> set[str]:
    keys: set[str] = set()
    for row in found.get("volumes", ()):
        keys.add(layout.canonical(row["canonical_digest"]))
        if row["original_digest"]:
            keys.add(layout.original(row["original_digest"]))
    for row in found.get("models", ()):
        keys |= set(PackageKeys(row["package_digest"]).both)
    return keys


def _prove(
    objects: Objects, serving: Engine, smoke_tolerance: float, found: Tables, cancellation: Cancellation
) -> None:
    """A package from elsewhere is believed no more than one that is registered."""
    for digest in sorted({str(row["package_digest"]) for row in found.get("models", ())}):
        package = read_package(objects, digest)
        prove_package(objects, serving, package, cancellation, smoke_tolerance)


def _read_back(connection: sa.Connection, project_id: str) -> None:
    def all_of(table: sa.Table, condition: sa.ColumnElement[bool]) -> Sequence[Row]:
        return [dict(row) for row in connection.execute(sa.select(table).where(condition)).mappings()]

    for row in all_of(tables.volumes, tables.volumes.c.project_id == project_id):
        volume_of(row)
    for row in all_of(tables.receipts, tables.receipts.c.project_id == project_id):
        receipt_of(row)
    for row in all_of(tables.models, tables.models.c.project_id == project_id):
        model_of(row)
    for row in all_of(tables.predictions, _predictions(project_id)):
        prediction_of(row)
