"""`rekindle project`: make, look at and steer projects."""

from __future__ import annotations

from typing import Any, get_args

import click

from rekindle.cli.describe import describe_project
from rekindle.cli.options import CommandOfAll, RekindleGroup, pass_session
from rekindle.cli.policy import changed_policy, describe_policy, policy_options
from rekindle.cli.session import Session
from rekindle.config import ModalityName, Organ, Policy
from rekindle.errors import InvalidInput
from rekindle.projects import Project
from rekindle.vocabulary import CodedConcept


@click.group(cls=RekindleGroup)
def project() -> None:
    """Create, show and steer projects."""


@project.command("create", cls=CommandOfAll)
@click.argument("name")
@click.option(
    "--organ",
    "organs",
    multiple=True,
    required=True,
    metavar="ID=VALUE",
    help="An organ and its value in mask files, as in liver=1; repeat for more. A coded concept may follow: "
    "liver=1:SCT:10200004:Liver.",
)
@click.option(
    "--modality",
    type=click.Choice(get_args(ModalityName), case_sensitive=False),
    default="CT",
    show_default=True,
    help="Modality of the images that are to be labelled.",
)
@policy_options
@pass_session
def create(session: Session, name: str, organs: tuple[str, ...], modality: ModalityName, **options: Any) -> None:
    """Create a project called NAME.

    Nothing runs until `rekindle project start`. Rules that are not given take the server's defaults.
    """
    made = session.client.create_project(
        name,
        [_organ(given) for given in organs],
        modality=modality,
        policy=changed_policy(Policy(), options),
    )
    session.out.done(f"Made project {made.name!r} ({made.id}).", describe_project(made))


@project.command("list", cls=CommandOfAll)
@pass_session
def list_projects(session: Session) -> None:
    """All projects."""
    projects = list(session.client.projects())
    session.out.rows(
        "Projects",
        ["Name", "State", "Modality", "Organs", "Round>", "Labelled>", "Cases>", "Id"],
        [
            (
                item.name,
                item.state,
                item.modality,
                ", ".join(organ.id for organ in item.organs),
                item.current_round,
                item.counts["labelled"],
                item.counts["registered"],
                item.id,
            )
            for item in projects
        ],
        [describe_project(item) for item in projects],
    )


@project.command("show")
@pass_session
def show(session: Session) -> None:
    """One project: its state, its counts, its policy."""
    _show(session, session.project())


@project.command("start")
@click.option(
    "--igniter",
    metavar="MODEL_ID",
    help="Begin with this imported model instead of training one on the seed set.",
)
@pass_session
def start(session: Session, igniter: str | None) -> None:
    """Start the loop.

    The first model is trained on the seed set, then it labels your cases.
    """
    chosen = session.project()
    chosen.start(igniter=chosen.model(igniter) if igniter else None)
    _say(session, chosen, "Started. `rekindle rounds watch` shows how it goes.")


@project.command("close-registration")
@pass_session
def close_registration(session: Session) -> None:
    """Close registration: no more cases come.

    The held-out cases are drawn now.
    """
    _say(session, session.project().close_registration(), "Registration is closed.")


@project.command("policy")
@policy_options
@pass_session
def policy(session: Session, **options: Any) -> None:
    """Show the policy, or change rules of it.

    Rules that are not given stay as they are.
    """
    chosen = session.project()
    if any(value is not None for value in options.values()):
        chosen.update_policy(changed_policy(chosen.policy, options))
    session.out.fields("Policy", describe_policy(chosen.policy), describe_project(chosen)["policy"])


@project.command("retry")
@pass_session
def retry(session: Session) -> None:
    """Let a stalled project try its failed step again."""
    _say(session, session.project().retry(), "Trying again.")


def _say(session: Session, chosen: Project, message: str) -> None:
    session.out.done(f"{chosen.name}: {message}", describe_project(chosen))


def _show(session: Session, chosen: Project) -> None:
    counts = chosen.counts
    session.out.fields(
        chosen.name,
        [
            ("id", chosen.id),
            ("state", chosen.state + (f": {chosen.state_reason}" if chosen.state_reason else "")),
            ("modality", chosen.modality),
            ("organs", ", ".join(f"{organ.id} = {organ.label_value}" for organ in chosen.organs)),
            ("seed cases", counts["seed"]),
            ("cases", f"{counts['registered']}, {'more may come' if chosen.registration_open else 'closed'}"),
            ("labelled", f"{counts['labelled']} ({counts['held_out_labelled']} of {counts['held_out']} held out)"),
            ("being corrected", counts["leased"]),
            ("round", chosen.current_round),
            ("serving model", chosen.active_model_version_id),
            *describe_policy(chosen.policy),
        ],
        describe_project(chosen),
    )


def _organ(given: str) -> Organ:
    name, _, rest = given.partition("=")
    value, *code = rest.split(":", 3)
    if not name or not value.isdigit() or len(code) not in (0, 3):
        raise InvalidInput(f"--organ {given!r}: write ID=VALUE, as in liver=1")
    return Organ(name, int(value), CodedConcept(*code) if code else None)
