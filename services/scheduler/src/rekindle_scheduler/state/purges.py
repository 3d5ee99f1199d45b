"""Erasing in SQL."""

from __future__ import annotations

import json
from collections.abc import Collection
from typing import Any
from uuid import uuid4

import sqlalchemy as sa
from rekindle.api.scheduler.v1 import records_pb2
from rekindle.vocabulary import Digest
from rekindle_servicekit import idempotency

from rekindle_scheduler.domain.enums import CaseMark, LeaseState, ReviewState
from rekindle_scheduler.domain.ids import CaseId, ProjectId
from rekindle_scheduler.domain.purges import Purge, PurgeId, PurgeState
from rekindle_scheduler.domain.records import Snapshot
from rekindle_scheduler.state.codec import decode, encode
from rekindle_scheduler.state.rows import Repository
from rekindle_scheduler.state.tables import (
    cases,
    drafts,
    leases,
    predictions,
    publications,
    purges,
    rounds,
    snapshots,
    submissions,
)

#: Tables whose records may name digests of images and masks, beside the rows of cases.
_RECORDS = (rounds, snapshots)
_GROUP_KEY_FIELD: int = records_pb2.Case.DESCRIPTOR.fields_by_name["group_key"].number


class Purges(Repository):
    """Erasures, and the rows that they change. `get` raises NotFound."""

    def add(self, purge: Purge) -> None:
        newest = sa.select(sa.func.coalesce(sa.func.max(purges.c.sequence), 0)).where(
            purges.c.project_id == purge.project_id
        )
        values = {
            "purge_id": purge.purge_id,
            "project_id": purge.project_id,
            "sequence": self._connection.execute(newest).scalar_one() + 1,
            "state": purge.state,
            "record": encode(purge),
        }
        self._connection.execute(sa.insert(purges).values(values))

    def get(self, project_id: ProjectId, purge_id: PurgeId) -> Purge:
        return _purge(self._one(_select(project_id, purge_id), "purge", purge_id))

    def lock(self, purge: Purge) -> Purge:
        """As `get`; no other transaction changes it before this one ends."""
        statement = _select(purge.project_id, purge.purge_id).with_for_update()
        return _purge(self._one(statement, "purge", purge.purge_id))

    def update(self, purge: Purge) -> None:
        changed = sa.update(purges).where(purges.c.purge_id == purge.purge_id)
        self._connection.execute(changed.values(state=purge.state, record=encode(purge)))

    def erasing(self) -> list[Purge]:
        """Of all projects, those that have not ended, oldest first."""
        statement = sa.select(purges).where(purges.c.state == PurgeState.ERASING)
        rows = self._connection.execute(statement.order_by(purges.c.project_id, purges.c.sequence))
        return [_purge(row) for row in rows]

    def page(self, project_id: ProjectId, *, before: int | None, limit: int) -> list[tuple[int, Purge]]:
        """Newest first."""
        statement = sa.select(purges).where(purges.c.project_id == project_id)
        if before is not None:
            statement = statement.where(purges.c.sequence < before)
        rows = self._connection.execute(statement.order_by(purges.c.sequence.desc()).limit(limit))
        return [(row.sequence, _purge(row)) for row in rows]

    def tombstone(self, purge: Purge) -> int:
        """Leave nothing of the cases but ids, minutes and tombstones; how many submissions they had."""
        ids = list(purge.case_ids)
        self._forget_group_keys(ids)
        for table in (predictions, drafts, publications):
            self._connection.execute(sa.delete(table).where(table.c.case_id.in_(ids)))
        live = sa.and_(leases.c.case_id.in_(ids), leases.c.state == LeaseState.LIVE)
        ended = {"state": LeaseState.RELEASED, "end_time": self._now, "reason": "the case was erased"}
        self._connection.execute(sa.update(leases).where(live).values(ended))
        cleared = {
            "mask_volume_id": "",
            "mask_digest": "",
            "receipt_id": "",
            "organ_states": [],
            "effort": [],
            "review_state": ReviewState.WITHDRAWN,
            "review_comment": "",
            "withdraw_time": self._now,
            "withdraw_reason": "the case was erased",
        }
        emptied = sa.update(submissions).where(submissions.c.case_id.in_(ids)).values(cleared)
        count = self._connection.execute(emptied).rowcount
        self._connection.execute(
            sa.update(cases)
            .where(cases.c.case_id.in_(ids))
            .values(
                {
                    "purged_at": self._now,
                    "image_digest": "",
                    "group_key": "",
                    "held_out": False,
                    "mark": CaseMark.NONE,
                    # Neither open nor labelled: a query for cases to work on passes over one that has a label,
                    # and no submission has this id.
                    "submission_id": purge.purge_id,
                    "pending_submission_id": None,
                    "fencing_token": cases.c.fencing_token + 1,
                    "lease_id": None,
                    "lease_expire_time": None,
                    "coarse_label": None,
                    "coarse_model_version_id": None,
                }
            )
        )
        return count

    def _forget_group_keys(self, ids: list[CaseId]) -> None:
        keys = self._connection.execute(sa.select(cases.c.group_key).where(cases.c.case_id.in_(ids)).distinct())
        for key in keys.scalars().all():
            if key:
                written, size = _written(key), len(key.encode())
                idempotency.overwrite(self._connection, written, written[:-size] + b"0" * size)

    def replace_snapshot(self, project_id: ProjectId, round: int, snapshot: Snapshot) -> None:
        of_round = sa.and_(snapshots.c.project_id == project_id, snapshots.c.round == round)
        new = {"digest": snapshot.digest, "record": encode(snapshot)}
        self._connection.execute(sa.update(snapshots).where(of_round).values(new))

    def redact(self, project_id: ProjectId, digests: Collection[Digest]) -> None:
        """Replace digests wherever the project's rows or answers that are kept have them."""
        # A stand-in has the form of a digest, is the digest of nothing, and is used once.
        stand_ins = {digest: "0" * 32 + uuid4().hex for digest in digests}
        for table in _RECORDS:
            keys = list(table.primary_key.columns)
            for row in self._connection.execute(sa.select(table).where(table.c.project_id == project_id)).all():
                text = json.dumps(row.record)
                redacted = text
                for digest, stand_in in stand_ins.items():
                    redacted = redacted.replace(digest, stand_in)
                if redacted != text:
                    of_row = sa.and_(*(column == getattr(row, column.name) for column in keys))
                    newer: dict[str, Any] = {"version": row.version + 1} if table is rounds else {}
                    changed = sa.update(table).where(of_row).values(record=json.loads(redacted), **newer)
                    self._connection.execute(changed)
        idempotency.redact(self._connection, digests)


def _written(group_key: str) -> bytes:
    """The key as a case in a stored answer has it: field number and kind, its length, its bytes."""
    data = group_key.encode()
    size, prefix = len(data), b""
    while size > 127:
        prefix, size = prefix + bytes([size & 127 | 128]), size >> 7
    return bytes([_GROUP_KEY_FIELD << 3 | 2]) + prefix + bytes([size]) + data


def _select(project_id: ProjectId, purge_id: PurgeId) -> sa.Select[Any]:
    return sa.select(purges).where(purges.c.project_id == project_id, purges.c.purge_id == purge_id)


def _purge(row: sa.Row[Any]) -> Purge:
    return decode(Purge, row.record)
