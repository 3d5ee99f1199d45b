"""`rekindle report`: rounds and minutes so far."""

from __future__ import annotations

import click

from rekindle.cli.describe import describe_project
from rekindle.cli.options import RekindleCommand, pass_session
from rekindle.cli.rounds import COLUMNS, round_row
from rekindle.cli.session import Session
from rekindle.records import Ledger


@click.command("report", cls=RekindleCommand)
@pass_session
def report(session: Session) -> None:
    """Rounds, decisions and minutes so far."""
    project = session.project()
    totals = project.report()
    if session.as_json:
        session.out.data({"project": describe_project(project), "rounds": totals.rounds, "ledger": totals.ledger})
        return
    session.out.rows(f"{project.name}: rounds", COLUMNS, [round_row(item) for item in totals.rounds], None)
    session.out.rows(
        "\nMinutes",
        ["Round>", "Cases>", "Minutes>", "Per case>", "Held-out cases>", "Held-out minutes>"],
        [
            (
                item.round,
                item.cases,
                item.minutes,
                item.minutes / item.cases if item.cases else None,
                item.held_out_cases,
                item.held_out_minutes,
            )
            for item in totals.ledger.rounds
        ],
        None,
    )
    session.out.done(f"\n{_total(totals.ledger)}", None)


def _total(ledger: Ledger) -> str:
    shares = [
        f"{minutes:.1f} {name}"
        for name, minutes in (
            ("measured", ledger.minutes_measured),
            ("inferred", ledger.minutes_inferred),
            ("simulated", ledger.minutes_simulated),
        )
        if minutes
    ]
    by_source = f" ({', '.join(shares)})" if shares else ""
    return f"{ledger.minutes_total:.1f} minutes in all{by_source}, {ledger.minutes_held_out:.1f} of them held out."
