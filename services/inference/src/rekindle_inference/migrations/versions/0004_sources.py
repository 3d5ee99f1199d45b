"""What volumes can be found by, what the values of masks mean, which model a mask is of."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"

_SINGLE = ("study_instance_uid", "series_instance_uid", "frame_of_reference_uid", "accession_number")


def upgrade() -> None:
    op.add_column("volumes", sa.Column("organs", sa.JSON(), nullable=True))
    op.create_index("ix_predictions_mask_volume_id", "predictions", ["mask_volume_id"])
    table = op.create_table(
        "volume_sources",
        sa.Column("volume_id", sa.Text(), sa.ForeignKey("volumes.volume_id"), primary_key=True),
        sa.Column("kind", sa.Text(), primary_key=True),
        sa.Column("value", sa.Text(), primary_key=True),
        sa.Column("project_id", sa.Text(), nullable=False),
    )
    op.create_index("ix_volume_sources_value", "volume_sources", ["project_id", "kind", "value"])
    _fill(table)


def _fill(table: sa.Table) -> None:
    """The references of the volumes that are there already."""
    volumes = sa.table("volumes", sa.column("volume_id"), sa.column("project_id"), sa.column("source", sa.JSON()))
    for volume in op.get_bind().execute(sa.select(volumes)).mappings().all():
        source = volume["source"]
        parts = {(kind, source.get(kind) or "") for kind in _SINGLE}
        parts |= {("sop_instance_uid", uid) for uid in source.get("sop_instance_uids") or ()}
        rows = [
            {"volume_id": volume["volume_id"], "project_id": volume["project_id"], "kind": kind, "value": value}
            for kind, value in sorted(parts)
            if value
        ]
        if rows:
            op.bulk_insert(table, rows)
