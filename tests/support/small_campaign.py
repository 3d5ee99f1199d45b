"""A small campaign on running services: a phantom's model begins it, so nothing is trained before the first label."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from phantom import Phantom, manifest_for, threshold_onnx
from rekindle.client import Client
from rekindle.config import HeldOut, Organ, Policy
from rekindle.errors import RekindleError
from rekindle.projects import Project

ORGANS = [Organ("liver", 6), Organ("spleen", 1)]
POLICY = Policy(sizes=[1], held_out=HeldOut(number=0), preset="tiny", recipe="paper")
TIMEOUT_S = 240.0
#: Of a campaign.
CASES = 2


def begin(client: Client, folder: Path, *, groups: list[str]) -> Project:
    """A started project with one seed case and a case for each group, all cases with coarse labels."""
    phantom = Phantom()
    project = client.create_project("small", ORGANS, policy=POLICY)
    project.add_seed_case(phantom.file(folder), phantom.file(folder, "mask"), modality="CT")
    for index, group in enumerate(groups):
        project.add_case(phantom.file(folder, voxels=np.roll(phantom.image, index + 1, axis=1)), group_key=group)
    project.close_registration()
    model = threshold_onnx(phantom.thresholds()).SerializeToString()
    project.start(igniter=project.import_model(manifest_for(model, phantom.thresholds()), model))
    wait_for(lambda: all(case.state == "ready" for case in project.cases()), "the cases are not predicted")
    return project


@dataclass(frozen=True)
class Ending:
    """What a campaign leaves behind, by content: no ids, no clocks."""

    snapshots: list[str]
    weights: list[str]
    packages: list[str]
    masks: list[tuple[int, str, str]]
    states: set[str]


def campaign(client: Client, folder: Path, disturb: Callable[[str, Project], None]) -> Ending:
    """Labels every case, one in a round; `disturb` is called once at each stage of the first round."""
    folder.mkdir()
    project = begin(client, folder, groups=[f"group-{number}" for number in range(CASES)])
    disturb("annotating", project)
    label_next(project)
    wait_for(lambda: project.round(1).state == "training", "round 1 does not train")
    disturb("training", project)
    wait_for(lambda: project.round(2).state == "annotating", "round 2 does not open")
    for _ in range(CASES - 1):
        label_next(project)
    wait_for(lambda: project.refresh().state == "complete", "the campaign does not end")
    rounds = project.rounds()
    models = sorted(project.models(), key=lambda model: model.version)
    return Ending(
        snapshots=[each.snapshot_digest for each in rounds],
        weights=[model.weights_digest for model in models],
        packages=[model.package_digest for model in models],
        masks=sorted((each.round, each.mask_digest, each.review_state) for each in project.submissions()),
        states={each.state for each in rounds},
    )


def label_next(project: Project) -> str:
    """Accept the coarse label of the next case; its case id."""
    lease = project.lease_next(wait_s=TIMEOUT_S)
    assert lease is not None
    with lease:
        coarse = lease.coarse_label()
        assert coarse is not None
        lease.submit(coarse.data, {"liver": "edited", "spleen": "accepted"})
    return lease.case.id


def label(project: Project, case_id: str) -> None:
    """Accept the coarse label of one case."""
    with project.lease(case_id) as lease:
        coarse = lease.coarse_label()
        assert coarse is not None
        lease.submit(coarse.data, {"liver": "edited", "spleen": "accepted"})


def wait_for(condition: Callable[[], bool], otherwise: str) -> None:
    """Polls until it holds; a service that is being restarted counts as not yet."""
    deadline = time.monotonic() + TIMEOUT_S
    while time.monotonic() < deadline:
        try:
            if condition():
                return
        except RekindleError:
            pass
        time.sleep(0.05)
    raise AssertionError(otherwise)
