"""`rekindle submission`: labels that were submitted, and what becomes of them."""

from __future__ import annotations

import click

from rekindle.cli.options import RekindleGroup, pass_session
from rekindle.cli.output import counted
from rekindle.cli.session import Session

STATES = ("accepted", "pending", "draft", "rejected", "withdrawn")


@click.group(cls=RekindleGroup)
def submission() -> None:
    """Submitted corrections: list, review, withdraw."""


@submission.command("list")
@click.option(
    "--state", "states", multiple=True, type=click.Choice(STATES), help="Only in this state; repeat for more."
)
@click.option("--mine", is_flag=True, help="Only your own.")
@click.option("--case", "case_id", default="", metavar="CASE", help="Only of this case.")
@click.option("--round", "round_number", type=int, default=0, metavar="N", help="Only of this round.")
@pass_session
def list_submissions(session: Session, states: tuple[str, ...], mine: bool, case_id: str, round_number: int) -> None:
    """Corrections, oldest first. `pending` ones wait for a reviewer, `draft` ones came too late."""
    project = session.project()
    listed = list(project.submissions(case_id=case_id, round=round_number, review_states=states, mine=mine))
    session.out.rows(
        counted(len(listed), "correction"),
        ["Submission", "Case", "Round>", "Revision>", "State", "Minutes>", "Reviewed", "Annotator"],
        [
            (
                item.id,
                item.case_id,
                item.round,
                item.revision,
                item.review_state,
                item.minutes,
                f"{item.reviewed.astimezone():%d %b %H:%M}" if item.reviewed else "",
                item.annotator_id,
            )
            for item in listed
        ],
        listed,
    )


@submission.command("review")
@click.argument("submission_id", metavar="SUBMISSION")
@click.option("--accept", "verdict", flag_value="accept", help="It counts.")
@click.option("--reject", "verdict", flag_value="reject", help="It does not count; its case is handed out again.")
@click.option("--comment", default="", metavar="TEXT", help="Why, in your own words; no patient data, please.")
@click.option("--supersede", is_flag=True, help="Accept it in place of another correction that counts by now.")
@pass_session
def review(session: Session, submission_id: str, verdict: str | None, comment: str, supersede: bool) -> None:
    """Accept or reject a correction."""
    if verdict is None:
        raise click.UsageError("say --accept or --reject")
    judged = session.project().review(
        submission_id,
        verdict,  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
        comment=comment,
        supersede=supersede,
    )
    session.out.done(f"Submission {judged.id} is {judged.review_state}.", judged)


@submission.command("withdraw")
@click.argument("submission_id", metavar="SUBMISSION")
@click.option("--reason", default="", metavar="TEXT", help="Why, in your own words; no patient data, please.")
@pass_session
def withdraw(session: Session, submission_id: str, reason: str) -> None:
    """Withdraw a correction.

    That is possible while no model was trained on it; the case is handed out again.

    Afterwards correct it instead: `rekindle next --case CASE --revise`.
    """
    judged = session.project().withdraw(submission_id, reason)
    session.out.done(f"Submission {judged.id} is withdrawn.", judged)
