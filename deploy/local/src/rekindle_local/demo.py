"""`demo`: a whole campaign on one machine, from a data set to a report."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from rekindle.errors import AlreadyExists

from rekindle_local.annotator import Annotator
from rekindle_local.campaign import Campaign, Plan, annotate, create
from rekindle_local.dataset import DataSet
from rekindle_local.history import history_of, write_history
from rekindle_local.outcome import report_of
from rekindle_local.report.model import Report
from rekindle_local.report.write import write_report
from rekindle_local.stack import Stack, StackOptions
from rekindle_local.synthetic import make_dataset

Say = Callable[[str], None]

#: Marks a folder that a demo made, and may therefore clear.
MARK = ".rekindle-demo"
SYNTHETIC = "synthetic abdomens, made by this program"


@dataclass(frozen=True, kw_only=True)
class DemoOptions:
    """What `make demo` was asked for."""

    out: Path
    #: Folder of the data set; None makes synthetic abdomens.
    data: Path | None = None
    strategy: str = "easy-first"
    seed: int = 0
    #: Preset of the trainer; None takes "demo" for synthetic data and "cpu" for real data.
    preset: str | None = None
    seed_ct: int | None = None
    recipe: str = "default"
    #: Settings of the services, for servers of other kinds than the embedded ones.
    environment: Mapping[str, str] = field(default_factory=dict[str, str])


def run_demo(options: DemoOptions, say: Say) -> tuple[Report, Path]:
    """Runs a campaign and writes report.json, report.html and history.json; returns report and path of the page.

    Raises rekindle.errors.RekindleError for wrong data, a stalled project or a service that does not start.
    """
    began = time.monotonic()
    state = _fresh_folder(options.out)
    data = _data(options, state, say)
    plan = Plan(
        strategy=options.strategy,
        seed=options.seed,
        preset=options.preset or ("cpu" if options.data else "demo"),
        recipe=options.recipe,
    )
    plan.policy(len(data.target)).to_proto()  # a wrong word is refused before anything is started
    environment = {**thread_settings(), **options.environment}
    with (
        Stack(StackOptions(state=state, port=0, environment=environment)) as stack,
        stack.client() as client,
    ):
        campaign = create(client, data, plan, say)
        annotate(campaign, Annotator(options.seed), say)
        say("every case is labelled; measuring every model version on the held-out cases")
        report, figures = report_of(
            campaign,
            data,
            plan,
            description=SYNTHETIC if options.data is None else f"folder {data.root.name}",
            campaign_seconds=time.monotonic() - began,
            notes=_notes(data, campaign),
        )
        write_history(history_of(campaign, _identity(options, plan)), options.out)
    _, page = write_report(report, figures, options.out)
    return report, page


def thread_settings() -> dict[str, str]:
    """Training and prediction take turns in a campaign with one annotator, so each may use every core."""
    cores = str(os.cpu_count() or 1)
    return {"REKINDLE_TRAINER_THREADS": cores, "REKINDLE_INFERENCE_ENGINE_THREADS": cores}


def _identity(options: DemoOptions, plan: Plan) -> dict[str, Any]:
    """What makes two campaigns the same one."""
    data = SYNTHETIC if options.data is None else options.data.name
    return {**asdict(plan), "round_shares": list(plan.round_shares), "data": data, "seed_ct": options.seed_ct}


def _fresh_folder(out: Path) -> Path:
    if out.exists() and any(out.iterdir()) and not (out / MARK).exists():
        raise AlreadyExists(f"{out} holds something that no demo made; choose another OUT folder")
    out.mkdir(parents=True, exist_ok=True)
    (out / MARK).touch()
    state = out / "state"
    shutil.rmtree(state, ignore_errors=True)
    state.mkdir()
    return state


def _data(options: DemoOptions, state: Path, say: Say) -> DataSet:
    root = options.data
    if root is None:
        root = state / "synthetic"
        say("making synthetic abdomens")
        make_dataset(root, options.seed)
    return DataSet.read(root.resolve()).with_seed_ct(options.seed_ct, options.seed)


def _notes(data: DataSet, campaign: Campaign) -> tuple[str, ...]:
    held_out = sum(1 for case in campaign.labelled if case.held_out)
    return (
        f"Seed set: {len(data.seed_ct)} CT ({', '.join(pair.name for pair in data.seed_ct)}) "
        f"and {len(data.seed_mr)} MR volumes.",
        f"Target set: {len(data.target)} CT volumes, {held_out} of them held out of training; chosen by "
        "a hash of their content and labelled between the others.",
        "All minutes are simulated minutes.",
    )
