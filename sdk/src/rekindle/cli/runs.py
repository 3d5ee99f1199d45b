"""`rekindle runs`: training runs."""

from __future__ import annotations

from dataclasses import asdict

import click

from rekindle.cli.describe import describe_run
from rekindle.cli.options import RekindleGroup, pass_session
from rekindle.cli.output import dice
from rekindle.cli.policy import window_words
from rekindle.cli.session import Session, interruptible
from rekindle.errors import NotFound
from rekindle.projects import Project
from rekindle.records import Metric
from rekindle.runs import Run


@click.group(cls=RekindleGroup)
def runs() -> None:
    """Training runs: list, follow, cancel."""


@runs.command("list")
@pass_session
def list_runs(session: Session) -> None:
    """The project's training runs, newest first."""
    listed = session.project().runs()
    session.out.rows(
        "Training runs",
        ["Run", "Kind", "State", "Minutes>", "Held-out Dice", "Why"],
        [
            (
                run.id,
                run.kind,
                run.state,
                run.train_seconds / 60 if run.train_seconds else None,
                ", ".join(f"{organ} {dice(value)}" for organ, value in run.held_out_dice().items()),
                run.reason,
            )
            for run in listed
        ],
        [describe_run(run) for run in listed],
    )


@runs.command("watch")
@click.argument("run_id", metavar="[RUN]", required=False)
@pass_session
def watch(session: Session, run_id: str | None) -> None:
    """Follow a training run until it ends.

    Without RUN it is the newest one. Ctrl-C ends the watch; the run goes on.
    """
    project = session.project()
    run = project.run(run_id) if run_id else _newest(project)
    with interruptible(), session.out.progress() as bars:
        move = bars.bar("training")
        for metric in run.watch():
            move(metric.step, metric.steps)
            session.out.line(_progress(metric), metric)
        run.refresh()
        ending = f"The run has {run.state}." if run.state in ("succeeded", "failed") else f"It is {run.state}."
        session.out.line(ending + (f" {run.reason}" if run.reason else ""), describe_run(run))


@runs.command("limits")
@pass_session
def limits(session: Session) -> None:
    """Hours and GPU seconds of the project's training.

    `rekindle project policy` changes them.
    """
    answer = session.project().training_limits()
    spent = f"{answer.gpu_seconds:.0f}"
    if answer.gpu_seconds_budget:
        spent += f" of {answer.gpu_seconds_budget:g}"
    if not answer.gpus_per_process:
        spent += "; training takes no GPU there, so it spends none"
    fields: list[tuple[str, object]] = [
        ("trains", window_words(answer.window)),
        ("GPU seconds", spent),
        ("now", answer.held_reason or "may train"),
    ]
    session.out.fields("Limits of training", fields, asdict(answer))


@runs.command("cancel")
@click.argument("run_id", metavar="RUN")
@pass_session
def cancel(session: Session, run_id: str) -> None:
    """Cancel a training run.

    The project stalls until `rekindle project retry`.
    """
    run = session.project().run(run_id).cancel()
    session.out.done(f"Run {run.id} is {run.state}.", describe_run(run))


def _newest(project: Project) -> Run:
    listed = project.runs()
    if not listed:
        raise NotFound("nothing has been trained yet")
    return listed[0]


def _progress(metric: Metric) -> str:
    parts = [
        f"{metric.phase}",
        f"epoch {metric.epoch}/{metric.epochs}",
        f"step {metric.step}/{metric.steps}",
        f"loss {metric.loss:.3f}",
    ]
    if metric.dice is not None:
        parts.append(f"Dice {metric.dice:.3f}")
    if metric.eta_seconds > 0:
        parts.append(f"about {metric.eta_seconds / 60:.0f} min left")
    return "  ".join(parts)
