"""A kill in the middle of a campaign changes nothing about how it ends."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest
from rekindle.client import Client
from rekindle.config import HeldOut, Organ, Policy
from rekindle.errors import RekindleError
from rekindle.projects import Project
from rekindle_local.annotator import Annotator
from rekindle_local.campaign import Campaign, correct
from rekindle_local.dataset import DataSet
from rekindle_local.stack import Stack, StackOptions
from rekindle_local.synthetic import make_dataset

TIMEOUT_S = 240.0
ORGANS = [Organ("liver", 1), Organ("spleen", 2)]
POLICY = Policy(sizes=[1, 2], held_out=HeldOut(number=1, schedule="interleaved"), preset="tiny", recipe="default")


@dataclass(frozen=True)
class Ending:
    """What a campaign leaves behind, by content: no ids, no clocks."""

    coarse_labels: dict[tuple[str, int], str]
    snapshots: list[str]
    weights: list[str]
    submissions: list[tuple[str, int, str, str]]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> DataSet:
    """A handful of synthetic abdomens."""
    root = tmp_path_factory.mktemp("data")
    make_dataset(root, seed=3, ct=2, mr=1, target=4)
    return DataSet.read(root)


@pytest.fixture(scope="module")
def undisturbed(data: DataSet, tmp_path_factory: pytest.TempPathFactory) -> Ending:
    """The campaign as it ends when nothing is killed."""
    return run_campaign(tmp_path_factory.mktemp("undisturbed"), data, lambda _stage, _stack, _project: None)


@pytest.mark.timeout(420)
@pytest.mark.parametrize(
    ("victim", "stage"),
    [("scheduler", "training"), ("inference", "predicting"), ("trainer", "training"), ("process", "training")],
)
def test_sigkill_changes_nothing_about_the_end(
    victim: str, stage: str, data: DataSet, undisturbed: Ending, tmp_path: Path
) -> None:
    """Same coarse labels, snapshots, weights and submissions, by digest, with one process killed on the way."""
    killed: list[str] = []

    def disturb(now: str, stack: Stack, project: Project) -> None:
        if now != stage or killed:
            return
        killed.append(victim)
        if victim == "process":
            training_process(stack).kill()
        else:
            stack.kill_service(victim)
            stack.start_service(victim)

    ending = run_campaign(tmp_path, data, disturb)

    assert killed == [victim]
    assert ending == undisturbed


def run_campaign(folder: Path, data: DataSet, disturb: Callable[[str, Stack, Project], None]) -> Ending:
    """Labels every case of a tiny project; `disturb` is called at each stage of round 0 and round 1."""
    with Stack(StackOptions(state=folder, port=0)) as stack, stack.client() as client:
        campaign = create(client, data)
        project = campaign.project
        wait_for(lambda: project.refresh().counts["predicted"] >= 1)
        disturb("predicting", stack, project)
        trained = False
        while (lease := project.lease_next(wait_s=TIMEOUT_S)) is not None:
            with lease:
                campaign.labelled.append(correct(campaign, lease, Annotator(seed=0)))
            if not trained and round_is_full(project):
                trained = True
                wait_for(lambda: has_checkpoint(stack, project.round(1).run_id))
                disturb("training", stack, project)
        wait_for(lambda: project.refresh().state == "complete")
        return ending_of(campaign)


def create(client: Client, data: DataSet) -> Campaign:
    project = client.create_project("tiny", ORGANS, policy=POLICY)
    for pair, modality in data.seeds():
        project.add_seed_case(pair.image, pair.label, modality=modality)
    cases = [project.add_case(pair.image) for pair in data.target]
    project.close_registration()
    project.start()
    return Campaign(project=project, pairs={case.id: pair for case, pair in zip(cases, data.target, strict=True)})


def ending_of(campaign: Campaign) -> Ending:
    project = campaign.project
    names = {case.id: campaign.pairs[case.id].name for case in project.cases()}
    volumes = {case.volume_id: names[case.id] for case in project.cases()}
    models = sorted(project.models(), key=lambda model: model.version)
    coarse: dict[tuple[str, int], str] = {}
    for model in models:
        for answer in project.predict(list(volumes), model_version_id=model.id):
            coarse[volumes[answer.volume_id], model.version] = answer.prediction.mask_digest
    return Ending(
        coarse_labels=coarse,
        snapshots=[item.snapshot_digest for item in project.rounds()],
        weights=[model.weights_digest for model in models],
        submissions=sorted(
            (names[item.case_id], item.round, item.mask_digest, item.review_state) for item in project.submissions()
        ),
    )


def round_is_full(project: Project) -> bool:
    """Whether round 1 has nothing left to label, so that its training is about to begin."""
    return all(case.state == "labelled" for case in project.cases(round=1))


def has_checkpoint(stack: Stack, run_id: str) -> bool:
    return bool(run_id) and any((stack.objects_dir / "runs" / run_id).glob("*/checkpoint/*/state.json"))


def training_process(stack: Stack) -> psutil.Process:
    """The running training process of this stack."""

    def candidates() -> Iterator[psutil.Process]:
        for process in psutil.process_iter(["cmdline"]):
            words = process.info["cmdline"] or []
            if "rekindle_trainer.process" in words and any(str(stack.objects_dir) in word for word in words):
                yield process

    return next(candidates())


def wait_for(condition: Callable[[], bool]) -> None:
    """Polls until the condition holds; a service that is being restarted counts as not yet."""
    deadline = time.monotonic() + TIMEOUT_S
    while time.monotonic() < deadline:
        try:
            if condition():
                return
        except RekindleError:
            pass
        time.sleep(0.02)
    raise AssertionError("waited in vain")
