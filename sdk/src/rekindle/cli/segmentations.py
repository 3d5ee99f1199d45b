"""`rekindle segmentations`: images that are segmented whether or not anybody waits."""

from __future__ import annotations

from typing import Any

import click

from rekindle.cli.options import RekindleGroup, pass_session
from rekindle.cli.session import Session, interruptible
from rekindle.segmentations import DurableSegmentation, Progress

STATES = ("queued", "running", "succeeded", "failed", "cancelled", "expired")


@click.group(cls=RekindleGroup)
def segmentations() -> None:
    """Durable segmentations: list, follow, cancel.

    `rekindle segment --durable` makes them; they are done whether or not anybody waits.
    """


@segmentations.command("list")
@click.option("--state", "states", type=click.Choice(STATES), multiple=True, help="Only these; may be repeated.")
@click.option("--volume", metavar="VOLUME", default="", help="Only of this image.")
@pass_session
def list_segmentations(session: Session, states: tuple[str, ...], volume: str) -> None:
    """The project's segmentations, newest first."""
    listed = list(session.project().segmentations(states=states, volume_id=volume))
    session.out.rows(
        "Segmentations",
        ["Segmentation", "Image", "Priority", "State", "Slices>", "Place>", "Why"],
        [
            (
                item.id,
                item.volume_id,
                item.priority,
                item.state,
                slices(item.progress),
                item.queue_position or None,
                item.reason,
            )
            for item in listed
        ],
        [describe(item) for item in listed],
    )


@segmentations.command("show")
@click.argument("segmentation_id", metavar="SEGMENTATION")
@pass_session
def show(session: Session, segmentation_id: str) -> None:
    """One segmentation."""
    segmentation = session.project().segmentation(segmentation_id)
    session.out.fields(f"Segmentation {segmentation.id}", describe(segmentation).items(), describe(segmentation))


@segmentations.command("cancel")
@click.argument("segmentation_id", metavar="SEGMENTATION")
@pass_session
def cancel(session: Session, segmentation_id: str) -> None:
    """Cancel a segmentation, also while it runs."""
    segmentation = session.project().segmentation(segmentation_id).cancel()
    session.out.done(f"Segmentation {segmentation.id} is {segmentation.state}.", describe(segmentation))


@segmentations.command("watch")
@click.argument("segmentation_id", metavar="SEGMENTATION")
@click.option("--after", metavar="CURSOR", type=click.IntRange(min=0), default=0, help="Only later changes.")
@pass_session
def watch(session: Session, segmentation_id: str, after: int) -> None:
    """Follow a segmentation until it has ended.

    Ctrl-C ends the watch; the segmentation goes on.
    """
    segmentation = session.project().segmentation(segmentation_id)
    with interruptible():
        for change in segmentation.watch(after_cursor=after):
            session.out.line(line(change), change)


def line(change: Progress) -> str:
    """What has changed, for people."""
    place = (
        f"place {change.queue_position}" if change.queue_position else slices((change.slices_done, change.slices_total))
    )
    return "  ".join(part for part in (change.state, place, change.reason) if part)


def slices(progress: tuple[int, int]) -> str:
    """Slices done and in all; empty before they are known."""
    return f"{progress[0]}/{progress[1]}" if progress[1] else ""


def describe(segmentation: DurableSegmentation) -> dict[str, Any]:
    """As plain data."""
    return {
        "id": segmentation.id,
        "volume_id": segmentation.volume_id,
        "priority": segmentation.priority,
        "state": segmentation.state,
        "reason": segmentation.reason,
        "model_version_id": segmentation.model_version_id,
        "slices_done": segmentation.progress[0],
        "slices_total": segmentation.progress[1],
        "queue_position": segmentation.queue_position,
        "created": segmentation.created,
        "result_id": segmentation.result_id,
    }
