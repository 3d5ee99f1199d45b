"""`rekindle rounds`: how the loop goes."""

from __future__ import annotations

import click

from rekindle.cli.options import RekindleGroup, pass_session
from rekindle.cli.output import counted
from rekindle.cli.session import Session, interruptible
from rekindle.errors import DeadlineExceeded
from rekindle.records import Event, Round

COLUMNS = ("Round>", "State", "Selected>", "Corrected>", "Labelled>", "Minutes>", "New model", "Why")


@click.group(cls=RekindleGroup)
def rounds() -> None:
    """Rounds of correcting and training."""


@rounds.command("list")
@pass_session
def list_rounds(session: Session) -> None:
    """All rounds.

    Round 0 is the first model's, before any correction.
    """
    listed = session.project().rounds()
    session.out.rows("Rounds", COLUMNS, [round_row(item) for item in listed], listed)


@rounds.command("watch")
@click.option("--after", metavar="CURSOR", type=click.IntRange(min=0), default=0, help="Only later events.")
@click.option("--timeout", metavar="MINUTES", type=click.FloatRange(min=0, min_open=True), help="Stop after this long.")
@pass_session
def watch(session: Session, after: int, timeout: float | None) -> None:
    """Show events until the project is complete.

    Ctrl-C ends the watch.
    With --json, one event per line; give the last one's cursor to --after to go on from there.
    """
    project = session.project()
    with interruptible():
        try:
            for event in project.watch(after_cursor=after, timeout_s=timeout and timeout * 60):
                time = f"{event.time.astimezone():%H:%M:%S}  " if event.time else ""
                session.out.line(f"{time}{event_line(event)}", event)
                if event.kind == "project-complete":
                    return
        except DeadlineExceeded:
            if timeout is None:
                raise


@rounds.command("train-now")
@pass_session
def train_now(session: Session) -> None:
    """Close the open round, and train.

    The round needs at least one new correction.
    """
    closed = session.project().train_now()
    session.out.done(f"Round {closed.number} closes with {counted(closed.labelled_cases, 'correction')}.", closed)


def event_line(event: Event) -> str:
    """What happened, with its round unless the message names it."""
    named = event.message.lower().startswith("round ") or not event.round
    return event.message if named else f"round {event.round}: {event.message}"


def round_row(item: Round) -> tuple[object, ...]:
    """A round as a table shows it."""
    outcome = {None: "", True: "serves", False: "refused"}[item.promoted]
    return (
        item.number,
        item.state,
        len(item.selected_case_ids),
        item.labelled_cases,
        item.labelled_total,
        item.minutes,
        outcome,
        item.decision_reason or item.reason,
    )
