"""A project: one transfer from a seed set to a target set."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from rekindle._call import new_request_id
from rekindle._services import Services
from rekindle.api.common.v1 import common_pb2 as common
from rekindle.api.inference.v1 import inference_pb2 as inference
from rekindle.api.inference.v1 import volumes_pb2 as volumes
from rekindle.api.scheduler.v1 import records_pb2 as records
from rekindle.api.scheduler.v1 import scheduler_pb2 as scheduler
from rekindle.api.trainer.v1 import trainer_pb2 as trainer
from rekindle.config import ModalityName, Organ, Policy, duration, enum_name, enum_value, modality_value
from rekindle.errors import DeadlineExceeded, IllegalTransition, NotFound
from rekindle.leases import Lease
from rekindle.models import Model
from rekindle.records import Case, Event, Ledger, LedgerEntry, Round, Submission
from rekindle.runs import Run
from rekindle.volumes import Progress, Source, VolumeFile, collect_download, file_bytes, upload_parts

PAGE_SIZE = 500


@dataclass(frozen=True, kw_only=True)
class Report:
    """Rounds and ledger of a project at one moment."""

    rounds: tuple[Round, ...]
    ledger: Ledger


@dataclass(frozen=True, kw_only=True)
class NoCase:
    """Why there is no case to lease now."""

    #: "preparing", "round-taken", "complete" or "not-running".
    reason: str
    message: str
    retry_after_s: float


class Project:
    """A handle on one project."""

    def __init__(self, services: Services, project: records.Project) -> None:
        self._services = services
        self._project = project

    # What it is.

    @property
    def id(self) -> str:
        return self._project.project_id

    @property
    def name(self) -> str:
        return self._project.display_name

    @property
    def organs(self) -> tuple[Organ, ...]:
        return tuple(Organ.from_proto(organ) for organ in self._project.organs)

    @property
    def modality(self) -> str:
        return common.Modality.Name(self._project.target_modality).removeprefix("MODALITY_")

    @property
    def state(self) -> str:
        """ "draft", "igniting", "active", "complete" or "stalled"; see `state_reason`."""
        return enum_name(records.ProjectState, "PROJECT_STATE", self._project.state)

    @property
    def state_reason(self) -> str:
        return self._project.state_reason

    @property
    def counts(self) -> dict[str, int]:
        """Cases by what became of them."""
        counts = self._project.counts
        return {field.name: getattr(counts, field.name) for field in counts.DESCRIPTOR.fields}

    @property
    def current_round(self) -> int:
        return self._project.current_round

    @property
    def active_model_version_id(self) -> str:
        return self._project.active_model_version_id

    def refresh(self) -> Project:
        self._project = self._get(self._services.scheduler.GetProject, scheduler.GetProjectRequest).project
        return self

    # Volumes and cases.

    def upload_image(
        self, image: Source, *, modality: ModalityName | str | None = None, progress: Progress | None = None
    ) -> str:
        """Sends an image (NIfTI) and returns its volume id. `modality` defaults to the project's."""
        header = volumes.UploadVolumeHeader(
            project_id=self.id,
            kind=common.VOLUME_KIND_IMAGE,
            format=common.FILE_FORMAT_NIFTI,
            modality=modality_value(modality or self.modality),  # type: ignore[arg-type]
        )
        return self._upload(header, image, progress).volume.volume_id

    def upload_mask(
        self, mask: Source, *, image_volume_id: str, progress: Progress | None = None
    ) -> volumes.Receipt:
        """Sends a mask on the grid of an image and returns its receipt."""
        header = volumes.UploadVolumeHeader(
            project_id=self.id,
            kind=common.VOLUME_KIND_MASK,
            format=common.FILE_FORMAT_NIFTI,
            image_volume_id=image_volume_id,
            organs=self._project.organs,
        )
        return self._upload(header, mask, progress).receipt

    def download(self, volume_id: str, progress: Progress | None = None) -> VolumeFile:
        """Downloads any volume of the project."""
        request = volumes.DownloadVolumeRequest(project_id=self.id, volume_id=volume_id)
        stream = self._services.caller.stream(self._services.volumes.DownloadVolume, request)
        return collect_download(stream, progress)

    def volumes(self, volume_ids: Iterable[str]) -> list[volumes.Volume]:
        """What is known of volumes (geometry, digests), in the order asked."""
        request = volumes.BatchGetVolumesRequest(project_id=self.id, volume_ids=volume_ids)
        return list(self._services.caller.unary(self._services.volumes.BatchGetVolumes, request).volumes)

    def volume(self, volume_id: str) -> volumes.Volume:
        """What is known of one volume."""
        request = volumes.GetVolumeRequest(project_id=self.id, volume_id=volume_id)
        return self._services.caller.unary(self._services.volumes.GetVolume, request).volume

    def receipt(self, receipt_id: str) -> volumes.Receipt:
        """The receipt of an uploaded mask."""
        request = volumes.GetReceiptRequest(project_id=self.id, receipt_id=receipt_id)
        return self._services.caller.unary(self._services.volumes.GetReceipt, request).receipt

    def add_seed_case(
        self, image: Source, mask: Source, *, modality: ModalityName, not_reviewed: Iterable[str] = ()
    ) -> str:
        """Adds one labelled case of the public set; `not_reviewed` names organs that nobody labelled in it."""
        image_volume_id = self.upload_image(image, modality=modality)
        receipt = self.upload_mask(mask, image_volume_id=image_volume_id)
        request = scheduler.AddSeedCaseRequest(
            request_id=new_request_id(),
            project_id=self.id,
            image_volume_id=image_volume_id,
            mask_volume_id=receipt.mask_volume_id,
            receipt_id=receipt.receipt_id,
            not_reviewed_organ_ids=not_reviewed,
        )
        return self._services.caller.unary(
            self._services.scheduler.AddSeedCase, request
        ).seed_case.seed_case_id

    def seed_cases(self) -> list[records.SeedCase]:
        """The labelled public cases."""
        pages = self._pages(self._services.scheduler.ListSeedCases, scheduler.ListSeedCasesRequest)
        return [seed_case for page in pages for seed_case in page.seed_cases]

    def add_case(self, image: Source, *, group_key: str = "") -> Case:
        """Uploads one target volume and registers it. `group_key` joins the cases of one patient."""
        return self.register_cases([(self.upload_image(image), group_key)])[0]

    def register_cases(self, volumes_and_groups: Iterable[tuple[str, str]]) -> list[Case]:
        """Registers uploaded volumes as target cases, many in one stream: (volume id, group key) each."""
        requests = (
            scheduler.RegisterCasesRequest(project_id=self.id, volume_id=volume_id, group_key=group_key)
            for volume_id, group_key in volumes_and_groups
        )
        answers = self._services.caller.stream(self._services.scheduler.RegisterCases, requests)
        return [Case.from_proto(answer.case) for answer in answers]

    def close_registration(self) -> Project:
        """No more cases come; draws the held-out ones where the policy gives a number."""
        return self._change(self._services.scheduler.CloseRegistration, scheduler.CloseRegistrationRequest)

    def case(self, case_id: str) -> Case:
        request = scheduler.GetCaseRequest(project_id=self.id, case_id=case_id)
        return Case.from_proto(self._services.caller.unary(self._services.scheduler.GetCase, request).case)

    def cases(
        self,
        *,
        states: Iterable[str] = (),
        held_out: bool | None = None,
        round: int = 0,
        ranked: bool = False,
    ) -> Iterator[Case]:
        """Target cases; `ranked` gives the policy's order, else the order of registration."""
        filters: dict[str, Any] = {
            "states": [enum_value(records.CaseState, "CASE_STATE", state) for state in states],
            "round": round,
            "ranked": ranked,
        }
        if held_out is not None:
            filters["held_out"] = held_out
        for page in self._pages(self._services.scheduler.ListCases, scheduler.ListCasesRequest, **filters):
            yield from (Case.from_proto(case) for case in page.cases)

    def mark(self, case_id: str, mark: str) -> Case:
        """Marks a case "easy", "hard", "put-off" or "none"."""
        request = scheduler.MarkCaseRequest(
            request_id=new_request_id(),
            project_id=self.id,
            case_id=case_id,
            mark=enum_value(records.CaseMark, "CASE_MARK", mark),  # type: ignore[arg-type]
        )
        return Case.from_proto(self._services.caller.unary(self._services.scheduler.MarkCase, request).case)

    # The loop.

    def start(self, *, igniter: Model | None = None) -> Project:
        """Starts the loop: trains the igniter on the seed set, or begins with a registered model."""
        return self._change(
            self._services.scheduler.StartProject,
            scheduler.StartProjectRequest,
            igniter_model_version_id=igniter.id if igniter else "",
        )

    def update_policy(self, policy: Policy) -> Project:
        """Replaces the policy. Raises VersionConflict when somebody changed it since `refresh`."""
        return self._change(
            self._services.scheduler.UpdatePolicy,
            scheduler.UpdatePolicyRequest,
            policy=policy.to_proto(),
            policy_version=self._project.policy_version,
        )

    def retry(self) -> Project:
        """Lets a stalled project try its failed step again."""
        return self._change(self._services.scheduler.RetryProject, scheduler.RetryProjectRequest)

    def try_lease_next(self, minutes: float | None = None) -> Lease | NoCase:
        """Leases the next case of the round, or says why there is none now."""
        request = scheduler.LeaseNextCaseRequest(request_id=new_request_id(), project_id=self.id)
        if minutes is not None:
            request.duration.CopyFrom(duration(minutes * 60))
        answer = self._services.caller.unary(self._services.scheduler.LeaseNextCase, request)
        if answer.WhichOneof("outcome") == "lease":
            return Lease(self._services, answer.lease, self.organs)
        return NoCase(
            reason=enum_name(scheduler.NoCase.Reason, "REASON", answer.none.reason),
            message=answer.none.message,
            retry_after_s=answer.none.retry_after.ToNanoseconds() / 1e9,
        )

    def lease_next(
        self,
        minutes: float | None = None,
        *,
        wait_s: float = 0.0,
        waiting: Callable[[NoCase], None] | None = None,
    ) -> Lease | None:
        """Leases the next case, waiting up to `wait_s` while a model is prepared. None when all is labelled.

        Raises IllegalTransition when the project does not run, DeadlineExceeded when the wait was in vain.
        """
        deadline = time.monotonic() + wait_s
        while True:
            outcome = self.try_lease_next(minutes)
            if isinstance(outcome, Lease):
                return outcome
            if outcome.reason == "complete":
                return None
            if outcome.reason == "not-running":
                raise IllegalTransition(outcome.message, reason="NOT_RUNNING")
            if waiting:
                waiting(outcome)
            pause_s = min(max(outcome.retry_after_s, 0.2), deadline - time.monotonic())
            if pause_s <= 0:
                raise DeadlineExceeded(f"no case became free within {wait_s:.0f} s: {outcome.message}")
            time.sleep(pause_s)

    def lease(self, case_id: str, minutes: float | None = None, *, round: int = 0) -> Lease:
        """Leases one case by its id, in or out of the round's selection."""
        request = scheduler.LeaseCaseRequest(
            request_id=new_request_id(), project_id=self.id, case_id=case_id, round=round
        )
        if minutes is not None:
            request.duration.CopyFrom(duration(minutes * 60))
        answer = self._services.caller.unary(self._services.scheduler.LeaseCase, request)
        return Lease(self._services, answer.lease, self.organs)

    def my_leases(self) -> list[Lease]:
        """The caller's live leases."""
        answer = self._get(self._services.scheduler.ListMyLeases, scheduler.ListMyLeasesRequest)
        return [Lease(self._services, lease, self.organs) for lease in answer.leases]

    def resume_lease(self, token: str) -> Lease:
        """Takes up a lease again that was written down with `Lease.token`. Raises NotFound when it has ended."""
        lease_id = json.loads(token)["lease_id"]
        for lease in self.my_leases():
            if lease.id == lease_id:
                lease.restore(token)
                return lease
        raise NotFound("this lease has ended; lease the case again")

    def submissions(self, *, case_id: str = "", round: int = 0) -> Iterator[Submission]:
        """Submissions, oldest first."""
        pages = self._pages(
            self._services.scheduler.ListSubmissions,
            scheduler.ListSubmissionsRequest,
            case_id=case_id,
            round=round,
        )
        return (Submission.from_proto(item) for page in pages for item in page.submissions)

    def train_now(self) -> Round:
        """Closes the open round with the labels that it has, and trains."""
        request = scheduler.TrainNowRequest(request_id=new_request_id(), project_id=self.id)
        return Round.from_proto(self._services.caller.unary(self._services.scheduler.TrainNow, request).round)

    def round(self, number: int) -> Round:
        request = scheduler.GetRoundRequest(project_id=self.id, number=number)
        return Round.from_proto(self._services.caller.unary(self._services.scheduler.GetRound, request).round)

    def rounds(self) -> list[Round]:
        """All rounds, the igniter's first."""
        pages = self._pages(self._services.scheduler.ListRounds, scheduler.ListRoundsRequest)
        return [Round.from_proto(item) for page in pages for item in page.rounds]

    def watch(self, *, after_cursor: int = 0, timeout_s: float | None = None) -> Iterator[Event]:
        """Yields the project's events after the cursor, then live ones, until the caller stops."""
        request = scheduler.WatchRoundsRequest(project_id=self.id, after_cursor=after_cursor)
        for answer in self._services.caller.stream(
            self._services.scheduler.WatchRounds, request, timeout_s=timeout_s or 24 * 3600
        ):
            yield Event.from_proto(answer.event)

    def ledger(self) -> Iterator[LedgerEntry]:
        """Every stretch of time, oldest first."""
        pages = self._pages(self._services.scheduler.ListLedger, scheduler.ListLedgerRequest)
        return (LedgerEntry.from_proto(item) for page in pages for item in page.entries)

    def report(self) -> Report:
        """Rounds and minutes so far."""
        answer = self._get(self._services.scheduler.GetReport, scheduler.GetReportRequest)
        return Report(
            rounds=tuple(Round.from_proto(item) for item in answer.rounds),
            ledger=Ledger.from_proto(answer.ledger),
        )

    # Models and runs.

    def models(self) -> list[Model]:
        """Model versions, newest first."""
        pages = self._pages(self._services.inference.ListModels, inference.ListModelsRequest)
        return [Model.from_proto(model, self._services) for page in pages for model in page.models]

    def model(self, model_version_id: str | None = None) -> Model:
        """One version by id; without an id the one that serves. Raises ModelNotReady when none does."""
        request = inference.GetModelRequest(project_id=self.id, model=selector(model_version_id))
        answer = self._services.caller.unary(self._services.inference.GetModel, request)
        return Model.from_proto(answer.model, self._services)

    def import_model(self, manifest: bytes, onnx: bytes, *, role: str = "igniter") -> Model:
        """Uploads a package (manifest.json and one self-contained ONNX file) and registers it."""
        package = self._upload_package(manifest, onnx)
        request = inference.RegisterModelRequest(
            request_id=new_request_id(),
            project_id=self.id,
            role=enum_value(inference.ModelRole, "MODEL_ROLE", role),  # type: ignore[arg-type]
            package_digest=package,
            organs=self._project.organs,
        )
        answer = self._services.caller.unary(self._services.inference.RegisterModel, request, timeout_s=300)
        return Model.from_proto(answer.model, self._services)

    def predict(
        self, volume_ids: Iterable[str], *, model_version_id: str | None = None
    ) -> Iterator[inference.PredictVolumesResponse]:
        """Predicts uploaded volumes with one version; one answer per volume as each is done."""
        request = inference.PredictVolumesRequest(
            project_id=self.id, model=selector(model_version_id), volume_ids=volume_ids
        )
        return self._services.caller.stream(self._services.inference.PredictVolumes, request, timeout_s=3600)

    def runs(self) -> list[Run]:
        """Training runs, newest first."""
        pages = self._pages(self._services.trainer.ListRuns, trainer.ListRunsRequest)
        return [Run(self._services, run) for page in pages for run in page.runs]

    def run(self, run_id: str) -> Run:
        request = trainer.GetRunRequest(project_id=self.id, run_id=run_id)
        return Run(self._services, self._services.caller.unary(self._services.trainer.GetRun, request).run)

    def start_run(self, run_id: str, spec: trainer.RunSpec) -> Run:
        """Starts a run of one's own beside the rounds, from a frozen snapshot."""
        request = trainer.StartRunRequest(
            request_id=new_request_id(), project_id=self.id, run_id=run_id, spec=spec
        )
        return Run(self._services, self._services.caller.unary(self._services.trainer.StartRun, request).run)

    # How it talks.

    def _get(self, method: Callable[..., Any], request_type: Callable[..., Any]) -> Any:
        return self._services.caller.unary(method, request_type(project_id=self.id))

    def _change(self, method: Callable[..., Any], request_type: Callable[..., Any], **fields: Any) -> Project:
        request = request_type(request_id=new_request_id(), project_id=self.id, **fields)
        self._project = self._services.caller.unary(method, request).project
        return self

    def _pages(
        self, method: Callable[..., Any], request_type: Callable[..., Any], **fields: Any
    ) -> Iterator[Any]:
        token = ""
        while True:
            request = request_type(project_id=self.id, page_size=PAGE_SIZE, page_token=token, **fields)
            page = self._services.caller.unary(method, request)
            yield page
            token = page.next_page_token
            if not token:
                return

    def _upload(
        self, header: volumes.UploadVolumeHeader, source: Source, progress: Progress | None
    ) -> volumes.UploadVolumeResponse:
        header.request_id = new_request_id()
        data = file_bytes(source)
        caller = self._services.caller
        return caller.repeat(
            lambda: self._services.volumes.UploadVolume(
                upload_parts(header, data, progress), timeout=caller.timeout_s
            )
        )

    def _upload_package(self, manifest: bytes, onnx: bytes) -> str:
        def parts() -> Iterator[inference.UploadPackageRequest]:
            header = inference.UploadPackageHeader(project_id=self.id, manifest=manifest)
            yield inference.UploadPackageRequest(header=header)
            for start in range(0, len(onnx), 1024 * 1024):
                yield inference.UploadPackageRequest(chunk=onnx[start : start + 1024 * 1024])

        caller = self._services.caller
        answer = caller.repeat(
            lambda: self._services.inference.UploadPackage(parts(), timeout=caller.timeout_s)
        )
        return answer.package_digest


def selector(model_version_id: str | None) -> inference.ModelSelector:
    """One version by id, or whichever is active."""
    if model_version_id:
        return inference.ModelSelector(model_version_id=model_version_id)
    return inference.ModelSelector(active=True)
