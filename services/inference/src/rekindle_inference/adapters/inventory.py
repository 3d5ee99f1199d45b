"""Everything of the database that has objects."""

from __future__ import annotations

from collections.abc import Iterator

import sqlalchemy as sa
from rekindle_servicekit.database import read

from rekindle_inference.adapters import rows
from rekindle_inference.adapters.tables import models, uploads, volumes
from rekindle_inference.domain.records import ModelVersion, ProjectId, VolumeId
from rekindle_inference.usecases.verification import StoredVolume

_ROWS_AT_ONCE = 5000


class SqlInventory:
    """usecases.verification.Inventory over a database."""

    def __init__(self, engine: sa.Engine) -> None:
        self._engine = engine

    def volumes(self) -> Iterator[StoredVolume]:
        after = ""
        while True:
            query = sa.select(
                volumes.c.volume_id, volumes.c.project_id, volumes.c.original_digest, volumes.c.canonical_digest
            )
            query = query.where(volumes.c.volume_id > after).order_by(volumes.c.volume_id).limit(_ROWS_AT_ONCE)
            with read(self._engine) as connection:
                page = connection.execute(query).all()
            for row in page:
                yield StoredVolume(
                    volume_id=VolumeId(row.volume_id),
                    project_id=ProjectId(row.project_id),
                    original_digest=row.original_digest,
                    canonical_digest=row.canonical_digest,
                )
            if len(page) < _ROWS_AT_ONCE:
                return
            after = page[-1].volume_id

    def models(self) -> list[ModelVersion]:
        with read(self._engine) as connection:
            found = connection.execute(sa.select(models).order_by(models.c.model_version_id)).mappings()
            return [rows.model_of({**row, "active": False}) for row in found]

    def upload_ids(self) -> set[str]:
        with read(self._engine) as connection:
            return set(connection.execute(sa.select(uploads.c.upload_id).where(~uploads.c.cleaned)).scalars())
