"""The part of the database that is about uploads in pieces."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import asdict
from datetime import datetime
from typing import Any

import sqlalchemy as sa

from rekindle_inference.adapters.tables import upload_parts, uploads
from rekindle_inference.domain.records import ProjectId, VolumeId
from rekindle_inference.domain.uploads import Act, Part, UploadId, UploadRecord, UploadState


class SqlUploadReads:
    """Questions about uploads."""

    def __init__(self, connection: sa.Connection) -> None:
        self._connection = connection

    def upload(self, project_id: ProjectId, upload_id: UploadId) -> UploadRecord | None:
        query = sa.select(uploads).where(uploads.c.project_id == project_id, uploads.c.upload_id == upload_id)
        row = self._connection.execute(query).mappings().one_or_none()
        return None if row is None else _record(row)

    def upload_part(self, upload_id: UploadId, offset: int) -> Part | None:
        query = _parts(upload_id).where(upload_parts.c.offset == offset)
        row = self._connection.execute(query).mappings().one_or_none()
        return None if row is None else Part(**row)

    def upload_parts(self, upload_id: UploadId) -> list[Part]:
        query = _parts(upload_id).order_by(upload_parts.c.offset)
        return [Part(**row) for row in self._connection.execute(query).mappings()]

    def open_uploads(self, project_id: ProjectId, now: datetime) -> int:
        is_open = sa.and_(uploads.c.state == UploadState.OPEN, uploads.c.expires_at > now)
        query = sa.select(sa.func.count()).where(uploads.c.project_id == project_id, is_open)
        return self._connection.execute(query).scalar_one()

    def open_upload_bytes(self, now: datetime) -> int:
        is_open = sa.and_(uploads.c.state == UploadState.OPEN, uploads.c.expires_at > now)
        return int(self._connection.execute(sa.select(sa.func.sum(uploads.c.size_bytes)).where(is_open)).scalar() or 0)

    def uploads_to_clean(self, now: datetime, *, limit: int, after: UploadRecord | None = None) -> list[UploadRecord]:
        has_expired = sa.and_(uploads.c.expires_at <= now, uploads.c.cleaned.is_(False))
        # Not those that somebody goes on with at this moment.
        return self._in_order(has_expired, limit, after, skip_locked=True)

    def uploads_to_forget(
        self, before: datetime, *, limit: int, after: UploadRecord | None = None
    ) -> list[UploadRecord]:
        return self._in_order(sa.and_(uploads.c.cleaned.is_(True), uploads.c.expires_at < before), limit, after)

    def _in_order(
        self, which: sa.ColumnElement[bool], limit: int, after: UploadRecord | None, *, skip_locked: bool = False
    ) -> list[UploadRecord]:
        place = sa.tuple_(uploads.c.expires_at, uploads.c.upload_id)
        query = sa.select(uploads).where(which).order_by(*place.clauses).limit(limit)
        if after is not None:
            query = query.where(place > (after.expires_at, after.upload_id))
        if skip_locked:
            query = query.with_for_update(skip_locked=True)
        return [_record(row) for row in self._connection.execute(query).mappings()]


class SqlUploadWrites(SqlUploadReads):
    """Changes of uploads."""

    def add_upload(self, upload: UploadRecord) -> None:
        row = {**_columns(upload), "cleaned": False}
        self._connection.execute(sa.insert(uploads).values(row))

    def renew_upload(self, upload_id: UploadId, expires_at: datetime) -> None:
        is_earlier = sa.and_(uploads.c.upload_id == upload_id, uploads.c.expires_at < expires_at)
        self._connection.execute(sa.update(uploads).where(is_earlier).values(expires_at=expires_at))

    def add_upload_part(self, upload: UploadRecord, part: Part, expires_at: datetime) -> bool:
        as_it_was = sa.and_(_is_open(upload.upload_id), uploads.c.received_bytes == part.offset)
        moved = self._connection.execute(
            sa.update(uploads)
            .where(as_it_was)
            .values(
                received_bytes=part.offset + part.size_bytes,
                chunks=uploads.c.chunks + 1,
                expires_at=max(upload.expires_at, expires_at),
            )
        )
        if moved.rowcount != 1:
            return False
        row = {"upload_id": upload.upload_id, **asdict(part)}
        self._connection.execute(sa.insert(upload_parts).values(row))
        return True

    def restart_upload(self, upload_id: UploadId) -> None:
        begin = sa.update(uploads).where(_is_open(upload_id)).values(received_bytes=0, chunks=0)
        if self._connection.execute(begin).rowcount == 1:
            self._forget_parts(upload_id)

    def end_upload(
        self,
        upload_id: UploadId,
        state: UploadState,
        *,
        volume_id: VolumeId | None = None,
        refusal: tuple[str, str] | None = None,
    ) -> bool:
        values = {
            "state": state,
            "volume_id": volume_id,
            "refusal": None if refusal is None else list(refusal),
            "header": {},
        }
        ended = self._connection.execute(sa.update(uploads).where(_is_open(upload_id)).values(values))
        if ended.rowcount != 1:
            return False
        self._forget_parts(upload_id)
        return True

    def upload_cleaned(self, upload_id: UploadId) -> None:
        self._connection.execute(sa.update(uploads).where(uploads.c.upload_id == upload_id).values(cleaned=True))

    def forget_uploads(self, upload_ids: Collection[UploadId]) -> None:
        # One that a purge has just given back to the sweep stays.
        those = sa.and_(uploads.c.upload_id.in_(list(upload_ids)), uploads.c.cleaned.is_(True))
        self._connection.execute(sa.delete(uploads).where(those))

    def _forget_parts(self, upload_id: UploadId) -> None:
        self._connection.execute(sa.delete(upload_parts).where(upload_parts.c.upload_id == upload_id))


def _is_open(upload_id: UploadId) -> sa.ColumnElement[bool]:
    return sa.and_(uploads.c.upload_id == upload_id, uploads.c.state == UploadState.OPEN)


def _parts(upload_id: UploadId) -> sa.Select[Any, Any, Any]:
    columns = sa.select(upload_parts.c.offset, upload_parts.c.size_bytes, upload_parts.c.sha256)
    return columns.where(upload_parts.c.upload_id == upload_id)


def _columns(upload: UploadRecord) -> dict[str, Any]:
    row = {name: getattr(upload, name) for name in UploadRecord.__dataclass_fields__}
    refusal = None if upload.refusal is None else list(upload.refusal)
    return {**row, "act": asdict(upload.act), "header": dict(upload.header), "refusal": refusal}


def _record(row: Mapping[Any, Any]) -> UploadRecord:
    columns: dict[str, Any] = {name: row[name] for name in UploadRecord.__dataclass_fields__}
    columns["state"], columns["act"] = UploadState(row["state"]), Act(**row["act"])
    columns["refusal"] = None if row["refusal"] is None else tuple(row["refusal"])
    return UploadRecord(**columns)
