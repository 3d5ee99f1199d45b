"""Everything of the database that has objects."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import sqlalchemy as sa
from rekindle_servicekit.database import read

from rekindle_inference.domain.records import ModelVersion, ProjectId, VolumeId
from rekindle_inference.state.models import model_of
from rekindle_inference.state.tables import models, uploads, volumes

_ROWS_AT_ONCE = 5000


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredVolume:
    """What a volume's row says of objects."""

    volume_id: VolumeId
    project_id: ProjectId
    #: Empty for a predicted mask.
    original_digest: str
    canonical_digest: str


class Inventory:
    """Everything that has objects, of all projects."""

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
            rows = connection.execute(sa.select(models).order_by(models.c.model_version_id)).mappings()
            return [model_of(dict(row)) for row in rows]

    def upload_ids(self) -> set[str]:
        """Uploads whose parts may still be stored."""
        with read(self._engine) as connection:
            return set(connection.execute(sa.select(uploads.c.upload_id).where(~uploads.c.cleaned)).scalars())
