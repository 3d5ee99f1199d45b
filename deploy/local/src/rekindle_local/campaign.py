"""A whole campaign through the SDK alone: a project is filled, ignited and labelled by a simulated annotator."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, datetime

import numpy as np
from rekindle.client import Client
from rekindle.config import HeldOut, Organ, OrganStatusName, Policy
from rekindle.errors import DeadlineExceeded, IllegalTransition
from rekindle.leases import Lease
from rekindle.projects import Project
from rekindle.records import Event, NoCase
from rekindle.timer import TimeSegment
from rekindle.vocabulary import CodedConcept, TimeKind, TimeSource
from rekindle.volumes import VolumeFile
from rekindle_imaging.geometry import Geometry
from rekindle_imaging.volume import Volume

from rekindle_local.annotator import ORGANS, Annotator, SimulatedMinutes
from rekindle_local.dataset import DataSet, Pair
from rekindle_local.files import read_label

Say = Callable[[str], None]

#: SNOMED CT concepts of the organs that the demo knows.
CODES = {
    "liver": CodedConcept("SCT", "10200004", "Liver"),
    "spleen": CodedConcept("SCT", "78961009", "Spleen"),
}
#: A round of training on a laptop takes minutes; an hour without a case means that something is broken.
WAIT_FOR_CASE_S = 3600.0


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What a campaign does; constants of the demo are here and nowhere else."""

    strategy: str = "easy-first"
    seed: int = 0
    preset: str = "cpu"
    recipe: str = "default"
    #: Share of the target cases that measure the model and never train it.
    held_out_share: float = 0.28
    #: Shares of the other cases by round: small rounds first (paper, section 2.2).
    round_shares: tuple[float, ...] = (0.2, 0.2, 0.3, 0.3)

    def policy(self, cases: int) -> Policy:
        """The project's policy for so many target cases."""
        held_out = round(cases * self.held_out_share) if cases > 2 else 0
        return Policy(
            sizes=round_sizes(cases - held_out, self.round_shares),
            ordering=self.strategy,
            candidate_pool=0,
            held_out=HeldOut(number=held_out, schedule="interleaved", share_of_round=0.34),
            margin_dice=0.02,
            min_held_out_cases=2,
            largest_component=True,
            preset=self.preset,
            recipe=self.recipe,
            seed=self.seed,
        )


@dataclass(frozen=True, kw_only=True)
class Labelled:
    """One correction as the simulated annotator made it."""

    case_id: str
    pair: Pair
    round: int
    held_out: bool
    minutes: SimulatedMinutes
    model_version_id: str
    predicted_minutes: float | None


@dataclass(kw_only=True)
class Campaign:
    """A campaign under way: which case is which file, and what was labelled."""

    project: Project
    pairs: dict[str, Pair]
    labelled: list[Labelled] = field(default_factory=list)


def round_sizes(cases: int, shares: tuple[float, ...]) -> list[int]:
    """Cases per round: each share of `cases` rounded, at least one, the last round takes the rest."""
    sizes: list[int] = []
    for position, share in enumerate(shares):
        left = cases - sum(sizes)
        rounds_left = len(shares) - position
        if left <= 0:
            break
        size = left if rounds_left == 1 else max(1, min(round(cases * share), left - (rounds_left - 1)))
        sizes.append(size)
    return sizes


def create(client: Client, data: DataSet, plan: Plan, say: Say) -> Campaign:
    """Makes the project, uploads seed and target volumes and starts the loop."""
    organs = [Organ(name, value, CODES.get(name)) for name, value in ORGANS.items()]
    project = client.create_project(
        f"demo {data.root.name}", organs, modality="CT", policy=plan.policy(len(data.target))
    )
    say(f"uploading {len(data.seeds())} seed and {len(data.target)} target volumes")
    # Two at a time: one is parsed while the other one travels.
    with ThreadPoolExecutor(max_workers=2) as pool:
        list(
            pool.map(
                lambda seed: project.add_seed_case(seed[0].image, seed[0].label, modality=seed[1]),
                data.seeds(),
            )
        )
        uploaded = list(pool.map(lambda pair: project.upload_image(pair.image), data.target))
    cases = project.register_cases([(volume_id, "") for volume_id in uploaded])
    project.close_registration()
    project.start()
    return Campaign(project=project, pairs={case.id: pair for case, pair in zip(cases, data.target, strict=True)})


def annotate(campaign: Campaign, annotator: Annotator, say: Say) -> None:
    """Labels cases as they are handed out, until none is left. Raises IllegalTransition for a stalled project."""
    project = campaign.project

    def waiting(reason: NoCase) -> None:
        if project.refresh().state == "stalled":
            raise IllegalTransition(f"the project has stalled: {project.state_reason}")

    with _Narrator(project, say):
        while (lease := project.lease_next(wait_s=WAIT_FOR_CASE_S, waiting=waiting)) is not None:
            with lease:
                campaign.labelled.append(correct(campaign, lease, annotator))
        wait_until_complete(project)


def wait_until_complete(project: Project) -> None:
    """Waits for the last round's training after the last label. Raises IllegalTransition when the project stalls."""
    deadline = time.monotonic() + WAIT_FOR_CASE_S
    while project.refresh().state != "complete":
        if project.state == "stalled":
            raise IllegalTransition(f"the project has stalled: {project.state_reason}")
        if time.monotonic() > deadline:
            raise DeadlineExceeded("the last round did not end within an hour")
        time.sleep(0.5)


def correct(campaign: Campaign, lease: Lease, annotator: Annotator) -> Labelled:
    """Submits the truth for the leased case, at the simulated cost of making it from the coarse label."""
    case = lease.case
    pair = campaign.pairs[case.id]
    coarse_file = lease.coarse_label()
    coarse = None if coarse_file is None else label_of(coarse_file)
    truth = read_label(pair.label)
    minutes = annotator.minutes(coarse, truth, pair.name)
    lease.submit(pair.label, organ_statuses(coarse, truth), time_segments=segments(minutes))
    return Labelled(
        case_id=case.id,
        pair=pair,
        round=lease.round,
        held_out=case.held_out,
        minutes=minutes,
        model_version_id=case.model_version_id,
        predicted_minutes=case.predicted_minutes,
    )


def organ_statuses(coarse: Volume | None, truth: Volume) -> dict[str, OrganStatusName]:
    """What an annotator would state: absent, accepted as it was, or edited."""
    statuses: dict[str, OrganStatusName] = {}
    for organ, value in ORGANS.items():
        wanted = truth.voxels == value
        if not wanted.any():
            statuses[organ] = "absent"
        elif coarse is not None and np.array_equal(coarse.voxels == value, wanted):
            statuses[organ] = "accepted"
        else:
            statuses[organ] = "edited"
    return statuses


def segments(minutes: SimulatedMinutes) -> list[TimeSegment]:
    """The ledger's entries of one simulated correction."""
    now = datetime.now(UTC)
    spent = {TimeKind.READING: minutes.reading_s, TimeKind.EDITING: sum(minutes.editing_s.values())}
    return [
        TimeSegment(
            kind=kind,
            active_seconds=seconds,
            start_time=now,
            source=TimeSource.SIMULATED,
            tool="simulated annotator",
        )
        for kind, seconds in spent.items()
        if seconds > 0
    ]


def label_of(file: VolumeFile) -> Volume:
    """A downloaded mask as a volume of this product's own type."""
    image = file.image()
    geometry = Geometry(
        size=image.GetSize(),
        spacing_mm=image.GetSpacing(),
        origin_mm=image.GetOrigin(),
        direction=image.GetDirection(),
    )
    return Volume(voxels=file.array().astype(np.uint8), geometry=geometry)


class _Narrator:
    """Tells the project's events as they happen, while the annotator works."""

    def __init__(self, project: Project, say: Say) -> None:
        self._project, self._say = project, say
        self._thread = threading.Thread(target=self._run, name="narrator", daemon=True)
        self._done = threading.Event()
        self._complete = threading.Event()

    def __enter__(self) -> None:
        self._thread.start()

    def __exit__(self, *_: object) -> None:
        # The last events come after the last submission; they are waited for, unless the campaign broke.
        self._complete.wait(5)
        self._done.set()

    def _run(self) -> None:
        cursor = 0
        while not self._done.is_set():
            try:
                for event in self._project.watch(after_cursor=cursor, timeout_s=3600):
                    cursor = event.cursor
                    self._tell(event)
                    if self._done.is_set():
                        return
            except Exception as failure:  # the campaign itself reports what matters
                if self._done.wait(1):
                    return
                self._say(f"(events interrupted: {failure})")

    def _tell(self, event: Event) -> None:
        if event.kind == "project-complete":
            self._complete.set()
        if event.kind not in ("case-leased", "training-progress"):
            self._say(event.message)
