"""A scheduler as a process, and an annotator who works with it, for tests."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from uuid import uuid4

import grpc
from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp
from rekindle.api.common.v1 import common_pb2
from rekindle.api.scheduler.v1 import annotation_pb2, records_pb2, scheduler_pb2, scheduler_pb2_grpc
from scheduler_fakes import FakeInference, FakeTrainer

TIMEOUT_S = 20.0
ORGANS = [
    common_pb2.Organ(id="liver", label_value=1),
    common_pb2.Organ(id="spleen", label_value=2),
]


class SchedulerProcess:
    """``python -m rekindle_scheduler`` on a database of its own."""

    def __init__(self, folder: Path, inference: FakeInference, trainer: FakeTrainer, *, database_url: str = "") -> None:
        self.folder = folder
        self.database_url = database_url or f"sqlite:///{folder / 'scheduler.sqlite3'}"
        self._addresses = {
            "REKINDLE_SCHEDULER_INFERENCE_ADDRESS": inference.address,
            "REKINDLE_SCHEDULER_TRAINER_ADDRESS": trainer.address,
        }
        self.process: subprocess.Popen[bytes] | None = None
        self.channel: grpc.Channel | None = None
        self.stub: Any = None

    def start(self, name: str = "scheduler", **settings: str) -> None:
        """Return when it listens."""
        port_file = self.folder / f"{name}.json"
        port_file.unlink(missing_ok=True)
        environment = {key: value for key, value in os.environ.items() if not key.startswith("REKINDLE_")}
        environment |= {
            "REKINDLE_SCHEDULER_ADDRESS": "127.0.0.1:0",
            "REKINDLE_SCHEDULER_HEALTH_ADDRESS": "127.0.0.1:0",
            "REKINDLE_SCHEDULER_DATABASE_URL": self.database_url,
            "REKINDLE_SCHEDULER_RECONCILE_INTERVAL_S": "0.1",
            "REKINDLE_SCHEDULER_BACKOFF_MAX_S": "0.5",
            "REKINDLE_SCHEDULER_PORT_FILE": str(port_file),
            **self._addresses,
            **settings,
        }
        log = (self.folder / f"{name}.log").open("ab")
        with log:
            self.process = subprocess.Popen([sys.executable, "-m", "rekindle_scheduler"], env=environment, stderr=log)
        eventually(port_file.exists, f"the scheduler does not start: see {log.name}")
        self.channel = grpc.insecure_channel(json.loads(port_file.read_text())["address"])
        self.stub = scheduler_pb2_grpc.SchedulerServiceStub(self.channel)

    def stop(self, number: int = signal.SIGTERM) -> int:
        """End it, by default in an orderly way; its exit status."""
        if self.channel is not None:
            self.channel.close()
        if self.process is None:
            return 0
        self.process.send_signal(number)
        status = self.process.wait(TIMEOUT_S)
        self.process = None
        return status


class Client:
    """One caller of a scheduler, with new request ids."""

    def __init__(self, scheduler: SchedulerProcess, inference: FakeInference) -> None:
        self.scheduler = scheduler
        self.inference = inference
        self.project_id = ""

    def call(self, method: str, **fields: Any) -> Any:
        """One call; mutations get a request id unless they have one."""
        request_type = getattr(scheduler_pb2, f"{method}Request", None) or getattr(annotation_pb2, f"{method}Request")
        if "request_id" in request_type.DESCRIPTOR.fields_by_name:
            fields.setdefault("request_id", str(uuid4()))
        if "project_id" in request_type.DESCRIPTOR.fields_by_name:
            fields.setdefault("project_id", self.project_id)
        return getattr(self.scheduler.stub, method)(request_type(**fields), timeout=TIMEOUT_S)

    def create_project(
        self, *, sizes: list[int], cases: int = 6, held_out: int = 0, close: bool = True, **policy: Any
    ) -> None:
        """A project with two seed cases and so many target cases, its registration closed or not."""
        rules = records_pb2.Policy(
            sizes=records_pb2.RoundSizes(cases=sizes),
            held_out=records_pb2.HeldOutPolicy(number=held_out, share_of_round=0.5),
            promotion=records_pb2.PromotionPolicy(margin_dice=0.02, min_held_out_cases=1),
            training=records_pb2.TrainingPolicy(preset="tiny", recipe="default", seed=7),
            **policy,
        )
        created = self.call(
            "CreateProject",
            display_name="Test",
            organs=ORGANS,
            target_modality=common_pb2.MODALITY_CT,
            policy=rules,
        )
        self.project_id = created.project.project_id
        for index in range(2):
            image = self.inference.add_image(self.project_id, f"seed {index}")
            receipt = self.inference.add_mask(self.project_id, image)
            self.call(
                "AddSeedCase",
                image_volume_id=image,
                mask_volume_id=receipt.mask_volume_id,
                receipt_id=receipt.receipt_id,
            )
        self.register([f"case {index}" for index in range(cases)])
        if close:
            self.call("CloseRegistration")

    def register(self, names: list[str]) -> list[scheduler_pb2.RegisterCasesResponse]:
        """Register images of these names."""
        return self.register_volumes([self.inference.add_image(self.project_id, name) for name in names])

    def register_volumes(self, volume_ids: list[str]) -> list[scheduler_pb2.RegisterCasesResponse]:
        """Register these volumes; the project is named in the first message alone."""
        requests = [
            scheduler_pb2.RegisterCasesRequest(project_id=self.project_id if index == 0 else "", volume_id=volume_id)
            for index, volume_id in enumerate(volume_ids)
        ]
        return list(self.scheduler.stub.RegisterCases(iter(requests), timeout=TIMEOUT_S))

    def project(self) -> records_pb2.Project:
        return self.call("GetProject").project

    def lease(self, duration_s: int | None = None) -> records_pb2.Lease:
        """The next case, waiting for it."""
        fields = {} if duration_s is None else {"duration": Duration(seconds=duration_s)}
        found: list[records_pb2.Lease] = []

        def ask() -> bool:
            response = self.call("LeaseNextCase", **fields)
            if response.HasField("lease"):
                found.append(response.lease)
            return bool(found)

        eventually(ask, "no case can be leased")
        return found[0]

    def label(self, cases: int, dice: float) -> None:
        """Label the next so many cases; `dice` is that of their coarse labels against the corrections."""
        for _ in range(cases):
            self.call("Submit", **self.submission(self.lease(), dice=dice))

    def submission(self, lease: records_pb2.Lease, dice: float = 0.8, **changes: Any) -> dict[str, Any]:
        """The fields of a sound Submit."""
        receipt = self.inference.add_mask(
            self.project_id,
            lease.case.volume_id,
            coarse_id=lease.case.coarse_label.mask_volume_id,
            dice=dice,
        )
        return {
            "lease_id": lease.lease_id,
            "fencing_token": lease.fencing_token,
            "receipt_id": receipt.receipt_id,
            "organ_states": states(liver="EDITED", spleen="ACCEPTED"),
            "time_segments": [simulated(lease.start_time, 300.0)],
            **changes,
        }

    def label_some(self, cases: int) -> int:
        """Label so many of the cases that are handed out; how many that were."""
        self.label(cases, dice=0.8)
        return cases

    def label_all(self) -> int:
        """Label whatever is handed out until everything is; how many cases that were."""
        labelled = 0
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            response = self.call("LeaseNextCase")
            if response.HasField("lease"):
                self.call("Submit", **self.submission(response.lease))
                labelled += 1
            elif response.none.reason == scheduler_pb2.NoCase.REASON_COMPLETE:
                return labelled
            else:
                time.sleep(0.05)
        raise AssertionError("the campaign does not come to its end")

    def watch(self, after_cursor: int) -> Any:
        """The stream of events behind a cursor."""
        request = scheduler_pb2.WatchRoundsRequest(project_id=self.project_id, after_cursor=after_cursor)
        return self.scheduler.stub.WatchRounds(request, timeout=TIMEOUT_S)

    def events(self) -> list[records_pb2.RoundEvent]:
        """What has happened so far: the stream until nothing comes for half a second."""
        request = scheduler_pb2.WatchRoundsRequest(project_id=self.project_id)
        responses = self.scheduler.stub.WatchRounds(request, timeout=0.5)
        found: list[records_pb2.RoundEvent] = []
        with contextlib.suppress(grpc.RpcError):  # the deadline, as a watch has no end of its own
            found.extend(response.event for response in responses)
        assert responses.code() is grpc.StatusCode.DEADLINE_EXCEEDED
        return found

    def wait_for(self, state: str) -> records_pb2.Project:
        """The project once it is in this state."""
        wanted = records_pb2.ProjectState.Value(f"PROJECT_STATE_{state}")
        eventually(lambda: self.project().state == wanted, f"the project does not become {state}")
        return self.project()


def states(**statuses: str) -> list[common_pb2.OrganState]:
    """``states(liver="EDITED")``."""
    return [
        common_pb2.OrganState(organ_id=organ_id, status=common_pb2.OrganStatus.Value(f"ORGAN_STATUS_{status}"))
        for organ_id, status in statuses.items()
    ]


def simulated(start: Timestamp, seconds: float) -> common_pb2.TimeSegment:
    """A stretch of simulated editing."""
    return common_pb2.TimeSegment(
        kind=common_pb2.TIME_KIND_EDITING,
        source=common_pb2.TIME_SOURCE_SIMULATED,
        start_time=start,
        active_seconds=seconds,
        tool="test",
    )


def eventually(is_so: Callable[[], bool], otherwise: str, timeout_s: float = TIMEOUT_S) -> None:
    """Wait until it is so."""
    deadline = time.monotonic() + timeout_s
    while not is_so():
        if time.monotonic() > deadline:
            raise AssertionError(otherwise)
        time.sleep(0.02)
