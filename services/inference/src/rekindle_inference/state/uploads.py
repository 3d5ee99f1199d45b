"""Uploads in pieces in SQL."""

from __future__ import annotations

from collections.abc import Collection
from datetime import datetime
from typing import Any

import sqlalchemy as sa

from rekindle_inference.domain.records import ProjectId, VolumeId
from rekindle_inference.domain.uploads import Part, UploadId, UploadRecord, UploadState
from rekindle_inference.state.rows import Repository, record_of, row_of
from rekindle_inference.state.tables import upload_parts, uploads


class Uploads(Repository):
    """Files on their way in, and the parts of them that have arrived."""

    def get(self, project_id: ProjectId, upload_id: UploadId) -> UploadRecord | None:
        query = sa.select(uploads).where(uploads.c.project_id == project_id, uploads.c.upload_id == upload_id)
        rows = self._mappings(query)
        return _upload_of(rows[0]) if rows else None

    def part(self, upload_id: UploadId, offset: int) -> Part | None:
        query = _parts(upload_id).where(upload_parts.c.offset == offset)
        rows = self._mappings(query)
        return Part(**rows[0]) if rows else None

    def parts(self, upload_id: UploadId) -> list[Part]:
        """In the order of their offsets."""
        query = _parts(upload_id).order_by(upload_parts.c.offset)
        return [Part(**row) for row in self._mappings(query)]

    def count_open(self, project_id: ProjectId) -> int:
        query = sa.select(sa.func.count()).where(uploads.c.project_id == project_id, self._lasting())
        return self._connection.execute(query).scalar_one()

    def open_bytes(self) -> int:
        """Bytes that the open ones of all projects have announced."""
        total = sa.select(sa.func.sum(uploads.c.size_bytes)).where(self._lasting())
        return int(self._connection.execute(total).scalar() or 0)

    def to_clean(self, *, limit: int, after: UploadRecord | None = None) -> list[UploadRecord]:
        """Those that have expired, of any project and state, and whose objects may still be there.

        In the order in which they expired, those behind `after`.
        """
        has_expired = sa.and_(uploads.c.expires_at <= self._now, uploads.c.cleaned.is_(False))
        # Not those that somebody goes on with at this moment.
        return self._in_order(has_expired, limit, after, skip_locked=True)

    def to_forget(self, before: datetime, *, limit: int, after: UploadRecord | None = None) -> list[UploadRecord]:
        """Those that were cleaned and expired before a moment; in the same order."""
        return self._in_order(sa.and_(uploads.c.cleaned.is_(True), uploads.c.expires_at < before), limit, after)

    def _in_order(
        self, condition: sa.ColumnElement[bool], limit: int, after: UploadRecord | None, *, skip_locked: bool = False
    ) -> list[UploadRecord]:
        place = sa.tuple_(uploads.c.expires_at, uploads.c.upload_id)
        query = sa.select(uploads).where(condition).order_by(*place.clauses).limit(limit)
        if after is not None:
            query = query.where(place > (after.expires_at, after.upload_id))
        if skip_locked:
            query = query.with_for_update(skip_locked=True)
        return [_upload_of(row) for row in self._mappings(query)]

    def _lasting(self) -> sa.ColumnElement[bool]:
        return sa.and_(uploads.c.state == UploadState.OPEN, uploads.c.expires_at > self._now)

    def add(self, upload: UploadRecord) -> None:
        self._insert(uploads, row_of(uploads, upload, cleaned=False))

    def renew(self, upload_id: UploadId, expires_at: datetime) -> None:
        is_earlier = sa.and_(uploads.c.upload_id == upload_id, uploads.c.expires_at < expires_at)
        self._connection.execute(sa.update(uploads).where(is_earlier).values(expires_at=expires_at))

    def add_part(self, upload: UploadRecord, part: Part, expires_at: datetime) -> bool:
        """The next part of an open upload; False where it has moved on or ended since `upload` was read."""
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
        self._insert(upload_parts, row_of(upload_parts, part, upload_id=upload.upload_id))
        return True

    def restart(self, upload_id: UploadId) -> None:
        """Forget the parts of an open upload."""
        begin = sa.update(uploads).where(_is_open(upload_id)).values(received_bytes=0, chunks=0)
        if self._connection.execute(begin).rowcount == 1:
            self._forget_parts(upload_id)

    def end(
        self,
        upload_id: UploadId,
        state: UploadState,
        *,
        volume_id: VolumeId | None = None,
        refusal: tuple[str, str] | None = None,
    ) -> bool:
        """Its header and parts are forgotten; False where it is not open any more."""
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

    def mark_cleaned(self, upload_id: UploadId) -> None:
        self._connection.execute(sa.update(uploads).where(uploads.c.upload_id == upload_id).values(cleaned=True))

    def forget(self, upload_ids: Collection[UploadId]) -> None:
        """Also the rows; one that a purge has just given back to the sweep stays."""
        cleaned = sa.and_(uploads.c.upload_id.in_(list(upload_ids)), uploads.c.cleaned.is_(True))
        self._connection.execute(sa.delete(uploads).where(cleaned))

    def _forget_parts(self, upload_id: UploadId) -> None:
        self._connection.execute(sa.delete(upload_parts).where(upload_parts.c.upload_id == upload_id))


def _is_open(upload_id: UploadId) -> sa.ColumnElement[bool]:
    return sa.and_(uploads.c.upload_id == upload_id, uploads.c.state == UploadState.OPEN)


def _parts(upload_id: UploadId) -> sa.Select[Any, Any, Any]:
    columns = sa.select(upload_parts.c.offset, upload_parts.c.size_bytes, upload_parts.c.sha256)
    return columns.where(upload_parts.c.upload_id == upload_id)


def _upload_of(row: dict[str, Any]) -> UploadRecord:
    return record_of(UploadRecord, row)
