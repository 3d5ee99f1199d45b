"""Specs, results and wiring for the trainer service's tests, with a launcher that starts nothing."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest
from rekindle.vocabulary import Digest, Example, ExampleSource, Modality, Organ, OrganState, OrganStatus
from rekindle_servicekit import database
from rekindle_servicekit.objects import MemoryObjects, Objects
from rekindle_servicekit.principal import Principal
from rekindle_trainer.domain.limits import TrainingLimits
from rekindle_trainer.domain.runs import Run
from rekindle_trainer.domain.spec import RunSpec, in_order
from rekindle_trainer.ports import LaunchError, ProcessStatus
from rekindle_trainer.state import MIGRATIONS, State
from rekindle_trainer.supervisor import Supervisor
from rekindle_trainer.usecases import runs
from servers.fixtures import MakeDatabase
from trainer_runs import sha

CATALOGUE = {"tiny": frozenset({"paper", "default"}), "cpu": frozenset({"default"})}
PRINCIPAL = Principal(issuer="loopback", subject="local", display_name="Local user")


@dataclass
class FakeLauncher:
    """Processes that exist on paper; a test says how they end."""

    launched: list[tuple[str, int]] = field(default_factory=list)
    stopped: list[str] = field(default_factory=list)
    #: Exit code by handle, of those that have ended.
    ended: dict[str, int | None] = field(default_factory=dict)
    #: Handles that `find` knows.
    findable: set[str] = field(default_factory=set)
    error: str | None = None
    #: Raised by `launch` after it has started the process, or before, as a server that does not answer would.
    trouble: Exception | None = None
    starts_despite_trouble: bool = False
    #: What is said of a handle, instead of what `ended` says.
    said: dict[str, ProcessStatus] = field(default_factory=dict)
    code_when_stopped: int | None = 143
    gpus: int = 0

    def launch(self, run_id: str, attempt: int) -> str:
        if self.error is not None:
            raise LaunchError(self.error)
        if self.trouble is None or self.starts_despite_trouble:
            self.launched.append((run_id, attempt))
            self.findable.add(f"{run_id}/{attempt}")
        if self.trouble is not None:
            raise self.trouble
        return f"{run_id}/{attempt}"

    def find(self, run_id: str, attempt: int) -> str | None:
        handle = f"{run_id}/{attempt}"
        return handle if handle in self.findable else None

    def poll(self, handle: str) -> ProcessStatus:
        return self.said.get(handle) or ProcessStatus(handle not in self.ended, self.ended.get(handle))

    def terminate(self, handle: str) -> None:
        self.ended.setdefault(handle, self.code_when_stopped)

    def stop(self, handle: str) -> ProcessStatus:
        self.stopped.append(handle)
        self.terminate(handle)
        return self.poll(handle)


@dataclass
class Service:
    """The service's parts in one process."""

    state: State
    objects: Objects
    launcher: FakeLauncher
    supervisor: Supervisor

    def start(self, spec: RunSpec, limits: TrainingLimits | None = None) -> Run:
        runs.examine_run(self.state, self.objects, CATALOGUE, spec, limits)
        with self.state.write() as uow:
            return runs.start_run(uow, PRINCIPAL, spec, limits)

    def get(self, run_id: str, project_id: str = "project") -> Run:
        with self.state.read() as uow:
            return runs.get_run(uow, project_id, run_id)

    def pass_(self) -> None:
        self.supervisor.run_pass()

    def write(self, run_id: str, attempt: int, name: str, content: Any) -> None:
        self.objects.put(f"runs/{run_id}/{attempt}/{name}.json", json.dumps(content).encode())

    def succeed(self, spec: RunSpec, attempt: int) -> None:
        """What a process does that succeeds, up to and with its end."""
        self.write(spec.run_id, attempt, "result", make_result(self.objects, spec))
        self.launcher.ended[f"{spec.run_id}/{attempt}"] = 0


def make_spec(run_id: str = "run-1", **changes: Any) -> RunSpec:
    values: dict[str, Any] = {
        "run_id": run_id,
        "project_id": "project",
        "kind": "sustainer",
        "preset": "tiny",
        "recipe": "default",
        "seed": 7,
        "modality": "CT",
        "organs": (Organ(id="liver", label_value=1), Organ(id="spleen", label_value=4)),
        "training": (make_example("a"), make_example("b", spleen="not_reviewed")),
        "heldout": (make_example("c"),),
        "initial_weights": None,
        "current_package": None,
    }
    return RunSpec(**{**values, **changes})


def make_example(name: str, **statuses: str) -> Example:
    states = {"liver": "edited", **statuses}
    return Example(
        case_id=f"case {name}",
        source=ExampleSource.TARGET,
        modality=Modality.CT,
        image_digest=Digest(sha(f"image {name}")),
        mask_digest=Digest(sha(f"mask {name}")),
        organ_states=tuple(OrganState(organ_id=organ, status=OrganStatus(word)) for organ, word in states.items()),
    )


def make_result(objects: Objects, spec: RunSpec) -> dict[str, Any]:
    """A result whose weights and package are stored."""
    weights, package = sha("weights"), sha("package")
    objects.put(f"weights/{weights}", b"weights")
    objects.put(f"packages/{package}/manifest.json", b"{}")
    objects.put(f"packages/{package}/model.onnx", b"graph")
    liver = {"dice": 0.9, "hd95_mm": 3.5, "volume_error_ml": -12.0, "predicted_ml": 1400.0}
    spleen = {"dice": None, "hd95_mm": None, "volume_error_ml": 0.0, "predicted_ml": 0.0}
    case = {"image_digest": sha("image c"), "case_id": "case c", "organs": {"liver": liver, "spleen": spleen}}
    return {
        "weights_digest": weights,
        "packages": [{"modality": spec.modality, "package_digest": package}],
        "snapshot_digest": in_order(spec).snapshot_digest(),
        "evaluation": {"candidate": [case], "current": []},
        "training_check": [],
        "train_seconds": 12.5,
        "epochs": 3,
        "final_loss": 0.25,
    }


def migrated(url: str) -> None:
    """The schema of a new database."""
    engine = database.make_engine(url)
    database.migrate(engine, MIGRATIONS)
    engine.dispose()


@pytest.fixture
def state(make_database: MakeDatabase) -> Iterator[State]:
    """An empty database."""
    engine = database.make_engine(make_database(migrated))
    database.migrate(engine, MIGRATIONS)
    yield State(engine)
    engine.dispose()


@pytest.fixture
def service(state: State) -> Service:
    """A service whose store holds the volumes of `make_spec`."""
    objects, launcher = MemoryObjects(), FakeLauncher()
    for name in "abc":
        for digest in (sha(f"image {name}"), sha(f"mask {name}")):
            objects.put(f"canonical/{digest}", b"voxels")
    supervisor = Supervisor(state=state, objects=objects, launcher=launcher)
    return Service(state, objects, launcher, supervisor)


@pytest.fixture
def spec() -> Callable[..., RunSpec]:
    """Makes specs: a run id and whatever should differ from the usual one."""
    return make_spec


@pytest.fixture
def example() -> Callable[..., Example]:
    """Makes examples by name, with organ statuses."""
    return make_example


@pytest.fixture
def result() -> Callable[[Objects, RunSpec], dict[str, Any]]:
    """Makes results whose objects are stored."""
    return make_result
