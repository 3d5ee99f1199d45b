"""`rekindle purge`: erase a patient."""

from __future__ import annotations

from typing import Any

import click

from rekindle.cli.options import RekindleGroup, pass_session
from rekindle.cli.output import counted
from rekindle.cli.session import Session
from rekindle.errors import DeadlineExceeded, InvalidInput
from rekindle.purges import Purge


@click.group("purge", cls=RekindleGroup)
def purge() -> None:
    """Erase patients, and list erasures."""


@purge.command("start")
@click.option("--group", "group_key", metavar="KEY", default="", help="The patient's group.")
@click.option("--case", "case_id", metavar="CASE", default="", help="One of the patient's cases, instead of the group.")
@click.option("--reason", required=True, help="Kept for good: it should not name the patient.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@click.option("--wait", "wait_s", type=float, default=60.0, show_default=True, help="Seconds to wait until it is done.")
@pass_session
def start(session: Session, group_key: str, case_id: str, reason: str, yes: bool, wait_s: float) -> None:
    """Erase a patient. This cannot be undone.

    Images, masks, originals, coarse labels and references are erased.
    """
    if bool(group_key) == bool(case_id):
        raise InvalidInput("say whom to erase: --group KEY, or --case CASE")
    project = session.project()
    if not yes and not session.as_json:
        what = f"group {group_key!r}" if group_key else f"the patient of case {case_id}"
        click.confirm(f"Erase {what} of project {project.name!r} for good?", abort=True)
    begun = project.purge(group_key=group_key, case_id=case_id, reason=reason)
    try:
        begun.wait(wait_s)
    except DeadlineExceeded as error:
        session.out.remark(error.message)
    cases = counted(len(begun.case_ids), "case")
    session.out.done(
        f"{begun.state}: {cases}, {counted(begun.submissions, 'label')}, {counted(begun.volumes, 'volume')}; "
        f"{counted(len(begun.marked_model_version_ids), 'model version')} had learnt from them (purge {begun.id})",
        _described(begun),
    )


@purge.command("list")
@pass_session
def list_purges(session: Session) -> None:
    """Every erasure of the project, newest first."""
    listed = list(session.project().purges())
    session.out.rows(
        "Erasures",
        ["Purge", "State", "When", "Cases>", "Labels>", "Volumes>", "Models marked>", "Reason", "Waits for"],
        [
            (
                item.id,
                item.state,
                f"{item.requested:%Y-%m-%d %H:%M}",
                len(item.case_ids),
                item.submissions,
                item.volumes,
                len(item.marked_model_version_ids),
                item.reason,
                item.waiting_for,
            )
            for item in listed
        ],
        [_described(item) for item in listed],
    )


def _described(item: Purge) -> dict[str, Any]:
    return {
        "purge_id": item.id,
        "state": item.state,
        "reason": item.reason,
        "waiting_for": item.waiting_for,
        "case_ids": list(item.case_ids),
        "submissions": item.submissions,
        "volumes": item.volumes,
        "objects": item.objects,
        "marked_model_version_ids": list(item.marked_model_version_ids),
        "requested": item.requested,
        "ended": item.ended,
    }
