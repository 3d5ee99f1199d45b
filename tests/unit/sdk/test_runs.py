"""Training runs."""

from __future__ import annotations

import pytest
from fake_world import World
from rekindle.api.trainer.v1 import trainer_pb2 as trainer
from rekindle.projects import Project


def test_run_watch_ends_with_the_run(project: Project, world: World) -> None:
    """Metrics come in order; the handle then knows the end."""
    spec = trainer.RunSpec(kind=trainer.RUN_KIND_SUSTAINER)
    dice = trainer.OrganMetrics(organ_id="liver", dice=0.8)
    worse = trainer.OrganMetrics(organ_id="liver", dice=0.6)
    undefined = trainer.OrganMetrics(organ_id="spleen")
    result = trainer.RunResult(
        candidate=[trainer.CaseMetrics(organs=[dice, undefined]), trainer.CaseMetrics(organs=[worse])]
    )
    world.runs["r"] = trainer.Run(run_id="r", project_id=project.id, spec=spec, state=2)
    world.metrics = [trainer.Metric(cursor=n, step=n, steps=2) for n in (1, 2)]
    run = project.run("r")
    world.runs["r"] = trainer.Run(run_id="r", project_id=project.id, spec=spec, state=4, result=result)
    assert [1, 2] == [metric.step for metric in run.watch()]
    assert ("sustainer", "succeeded") == (run.kind, run.state)
    assert {"liver": pytest.approx(0.7)} == run.held_out_dice()
