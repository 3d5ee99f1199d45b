"""The command `rekindle` with its global options and groups."""

from __future__ import annotations

from typing import Any, get_args

import click

from rekindle import __version__
from rekindle._call import UploadWay
from rekindle.cli.access import access_options
from rekindle.cli.archives import export_project, import_project
from rekindle.cli.cases import cases, seeds
from rekindle.cli.drafts import draft, take_up
from rekindle.cli.info import info
from rekindle.cli.leases import leases
from rekindle.cli.models import models
from rekindle.cli.options import RekindleGroup, Root
from rekindle.cli.project import project
from rekindle.cli.purge import purge
from rekindle.cli.report import report
from rekindle.cli.results import limits, results
from rekindle.cli.rounds import rounds
from rekindle.cli.runs import runs
from rekindle.cli.segment import segment
from rekindle.cli.segmentations import segmentations
from rekindle.cli.session import Session
from rekindle.cli.sessions import session as session_group
from rekindle.cli.sources import study, volumes
from rekindle.cli.submissions import submission
from rekindle.cli.token import token
from rekindle.cli.verify import verify
from rekindle.cli.work import next_case, submit
from rekindle.client import DEFAULT_ADDRESS
from rekindle.credentials import AccessOptions


@click.group(cls=Root, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, prog_name="rekindle")
@click.option(
    "--address",
    metavar="HOST:PORT",
    default=DEFAULT_ADDRESS,
    envvar="REKINDLE_ADDRESS",
    show_default=True,
    show_envvar=True,
    help="Where the scheduler listens.",
)
@click.option(
    "--inference",
    metavar="HOST:PORT",
    envvar="REKINDLE_INFERENCE",
    show_envvar=True,
    help="Where inference listens; without it, one port above the scheduler.",
)
@click.option(
    "--trainer",
    metavar="HOST:PORT",
    envvar="REKINDLE_TRAINER",
    show_envvar=True,
    help="Where the trainer listens; without it, two ports above the scheduler.",
)
@click.option(
    "--project",
    metavar="NAME",
    envvar="REKINDLE_PROJECT",
    show_envvar=True,
    help="Name or id of the project; not needed while there is only one.",
)
@access_options
@click.option(
    "--uploads",
    type=click.Choice(get_args(UploadWay)),
    default="auto",
    envvar="REKINDLE_UPLOADS",
    show_default=True,
    show_envvar=True,
    help="How files are sent: in one stream, in pieces that survive broken connections, or to an address of the "
    "object store; auto: a stream, and pieces when it breaks.",
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of tables.")
@click.pass_context
def rekindle(
    ctx: click.Context,
    address: str,
    inference: str | None,
    trainer: str | None,
    project: str | None,
    uploads: UploadWay,
    as_json: bool,
    **access: Any,
) -> None:
    """Label a set of images together with a model that learns from your corrections.

    \b
    A working day:
      rekindle next                  fetch the next case: an image and its coarse label
      ... correct the label in your viewer, save it as mask.nii.gz beside the image ...
      rekindle submit FOLDER         submit the correction
      rekindle rounds list           see how the model is doing

    \b
    Setting up, once:
      rekindle project create "Liver MR" --organ liver=1 --modality MR
      rekindle seeds add PUBLIC_DATA --modality CT
      rekindle cases add MY_IMAGES --close
      rekindle project start

    --project and --json may also be given after a command.

    Exit codes: 0 done, 2 wrong input, 3 not found, 4 conflict or lost case, 5 not reachable or not now,
    6 not allowed, 1 anything else.
    """
    session = Session(
        address=address, inference=inference, trainer=trainer, access=AccessOptions(**access), uploads=uploads
    )
    session.project_name, session.as_json = project, as_json
    ctx.obj = session
    ctx.call_on_close(session.close)


LABELS: tuple[RekindleGroup, ...] = (session_group, draft, leases, submission)
DELIVERY: tuple[RekindleGroup, ...] = (segmentations, results, limits)
GROUPS: tuple[RekindleGroup, ...] = (
    *LABELS,
    *DELIVERY,
    project,
    seeds,
    cases,
    rounds,
    models,
    runs,
    token,
    study,
    volumes,
)
OPERATING: tuple[click.Command, ...] = (info, verify, purge)
for command in (export_project, import_project):
    project.add_command(command)
for command in (*GROUPS, next_case, submit, take_up, segment, report, *OPERATING):
    rekindle.add_command(command)
