"""Durable segmentations as the domain has them, waiting and begun, at a fixed moment."""

from datetime import UTC, datetime, timedelta

from rekindle_inference.domain import segmentations as domain
from rekindle_inference.domain.segmentations import Priority, Segmentation, queue_place

NOW = datetime(2030, 1, 1, 12, tzinfo=UTC)
HOUR = timedelta(hours=1)


def segmentation(name, priority=Priority.ROUTINE, minutes_ago=0.0, **fields):
    created_at = NOW - timedelta(minutes=minutes_ago)
    lane, due_at = queue_place(priority, created_at, HOUR)
    return Segmentation(
        **{
            "segmentation_id": name,
            "project_id": "p",
            "volume_id": "v",
            "requested_model_version_id": None,
            "priority": priority,
            "lane": lane,
            "due_at": due_at,
            "created_at": created_at,
            "expire_at": NOW + HOUR,
            **fields,
        }
    )


def begun(name, *, claim="a", until=NOW + HOUR, attempts=0, **fields):
    """One that somebody works on."""
    fresh = segmentation(name, attempts=attempts, **fields)
    return domain.start(fresh, model_version_id="m1", claim=claim, now=NOW, until=until)
