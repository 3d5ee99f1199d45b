"""`rekindle results` and `rekindle limits`: the masks that are delivered, and what is left out of them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import click

from rekindle.cli.options import RekindleGroup, pass_session
from rekindle.cli.session import Session, interruptible
from rekindle.errors import DeadlineExceeded, InvalidInput
from rekindle.formats import SUFFIXES, FormatName
from rekindle.mirror import ResultFolder
from rekindle.results import QualityLimit, Result


@click.group(cls=RekindleGroup)
def results() -> None:
    """Delivered masks: list them, follow them.

    They come from models, from corrections and from reviews.
    """


@results.command("list")
@click.argument("volume_id", metavar="VOLUME")
@pass_session
def list_results(session: Session, volume_id: str) -> None:
    """The results of one image, newest first."""
    listed = list(session.project().results_of(volume_id))
    session.out.rows(
        "Results",
        ["Cursor>", "Result", "Origin", "Supersedes", "Taken back", "Left out"],
        [
            (result.cursor, result.id, result.origin, result.supersedes, result.retracted, left_out(result))
            for result in listed
        ],
        [result.describe() for result in listed],
    )


@results.command("watch")
@click.option("--after", metavar="CURSOR", type=click.IntRange(min=0), help="Only later results.")
@click.option(
    "--save",
    "folder",
    metavar="DIR",
    type=click.Path(path_type=Path, file_okay=False),
    help="Keep the mask that stands for each image in DIR, and go on from there the next time.",
)
@click.option(
    "--format",
    type=click.Choice(list(SUFFIXES)),
    default="nifti",
    show_default=True,
    help="How masks are saved.",
)
@click.option("--timeout", metavar="MINUTES", type=click.FloatRange(min=0, min_open=True), help="Stop after this long.")
@pass_session
def watch(session: Session, after: int | None, folder: Path | None, format: FormatName, timeout: float | None) -> None:
    """Show each result as it comes, until you press Ctrl-C.

    Waits while the service is away.
    With --save a newer mask replaces the older of the same image, and one that is taken back is removed.
    """
    kept = ResultFolder(folder, format) if folder else None
    begin = after if after is not None else kept.cursor if kept else 0
    with interruptible():
        for result in _until(session.project().results(after=begin, timeout_s=timeout and timeout * 60)):
            path = kept.keep(result) if kept else None
            saved = f"  saved as {path}" if path else ""
            session.out.line(f"{line(result)}{saved}", {**result.describe(), "file": path and str(path)})


@click.group(cls=RekindleGroup)
def limits() -> None:
    """Least confidence of the organs in results."""


@limits.command("show")
@pass_session
def show_limits(session: Session) -> None:
    """The project's limits."""
    _tell(session, session.project().quality_limits())


@limits.command("set")
@click.argument("given", metavar="[ORGAN=LEAST]...", nargs=-1)
@click.option(
    "--must-find",
    "must_find",
    metavar="ORGAN",
    multiple=True,
    help="Leave this organ out also where nothing was found.",
)
@pass_session
def set_limits(session: Session, given: tuple[str, ...], must_find: tuple[str, ...]) -> None:
    """Replace the project's limits.

    For example: `rekindle limits set liver=0.9 spleen=0.85`. Without any the limits are removed.

    LEAST is the confidence (0 to 1) that an organ must have. Coarse labels for annotators always show every organ.
    """
    wanted = dict(_limit(text) for text in given)
    both = {
        organ: QualityLimit(least=wanted.get(organ, 0.0), abstain_when_nothing_found=organ in must_find)
        for organ in [*wanted, *must_find]
    }
    _tell(session, session.project().set_quality_limits(both))


def line(result: Result) -> str:
    """One result, for people."""
    what = "taken back" if result.retracted else result.origin
    outranked = "a person's mask stands" if result.outranked_by else ""
    missing = f"without {left_out(result)}" if result.abstentions else ""
    return "  ".join(part for part in (str(result.cursor), result.volume_id, what, outranked, missing) if part)


def left_out(result: Result) -> str:
    """The organs that are not in the mask."""
    return ", ".join(item.organ_id for item in result.abstentions)


def _until(results: Iterator[Result]) -> Iterator[Result]:
    try:
        yield from results
    except DeadlineExceeded:
        return


def _limit(text: str) -> tuple[str, float]:
    organ, _, least = text.partition("=")
    try:
        return organ, float(least)
    except ValueError:
        raise InvalidInput(f"{text!r} is not ORGAN=LEAST, for example liver=0.9") from None


def _tell(session: Session, by_organ: dict[str, QualityLimit]) -> None:
    session.out.rows(
        "Limits",
        ["Organ", "Least confidence>", "Must be found"],
        [(organ, f"{limit.least:.3f}", limit.abstain_when_nothing_found) for organ, limit in by_organ.items()],
        by_organ,
    )
