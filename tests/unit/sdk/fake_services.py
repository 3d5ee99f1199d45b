# ruff: noqa: N802 - methods are named as in the protos
"""The four services in memory, honest about what the client sees: one project flow without any model."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

from fake_world import World, served, stamp
from rekindle.api.common.v1 import common_pb2 as common
from rekindle.api.inference.v1 import inference_pb2 as inference
from rekindle.api.inference.v1 import inference_pb2_grpc, volumes_pb2_grpc
from rekindle.api.inference.v1 import volumes_pb2 as volumes
from rekindle.api.scheduler.v1 import records_pb2 as records
from rekindle.api.scheduler.v1 import scheduler_pb2 as api
from rekindle.api.scheduler.v1 import scheduler_pb2_grpc
from rekindle.api.trainer.v1 import trainer_pb2 as trainer
from rekindle.api.trainer.v1 import trainer_pb2_grpc
from rekindle.errors import IllegalTransition, IntegrityError, ModelNotReady, NotFound, VersionConflict

CHUNK = 1000


@served
class FakeScheduler(scheduler_pb2_grpc.SchedulerServiceServicer):
    def __init__(self, world: World) -> None:
        self.world = world

    def CreateProject(self, request: Any, context: Any) -> Any:
        project = records.Project(
            project_id=f"project-{len(self.world.projects) + 1}",
            display_name=request.display_name,
            organs=request.organs,
            target_modality=request.target_modality,
            policy=request.policy,
            state=records.PROJECT_STATE_DRAFT,
            registration_open=True,
            policy_version=1,
        )
        self.world.projects[project.project_id] = project
        return api.CreateProjectResponse(project=project)

    def GetProject(self, request: Any, context: Any) -> Any:
        return api.GetProjectResponse(project=self.world.project(request.project_id))

    def ListProjects(self, request: Any, context: Any) -> Any:
        # One a page, so that a client that stops at the first page is found out.
        ids, start = list(self.world.projects), int(request.page_token or 0)
        page = [self.world.projects[project_id] for project_id in ids[start : start + 1]]
        following = str(start + 1) if start + 1 < len(ids) else ""
        return api.ListProjectsResponse(projects=page, next_page_token=following)

    def StartProject(self, request: Any, context: Any) -> Any:
        project = self.world.project(request.project_id)
        if project.state != records.PROJECT_STATE_DRAFT:
            raise IllegalTransition("the project was started before")
        project.state = records.PROJECT_STATE_IGNITING
        return api.StartProjectResponse(project=project)

    def UpdatePolicy(self, request: Any, context: Any) -> Any:
        project = self.world.project(request.project_id)
        if request.policy_version != project.policy_version:
            raise VersionConflict("somebody changed the policy: read it again")
        project.policy.CopyFrom(request.policy)
        project.policy_version += 1
        return api.UpdatePolicyResponse(project=project)

    def RetryProject(self, request: Any, context: Any) -> Any:
        project = self.world.project(request.project_id)
        if project.state != records.PROJECT_STATE_STALLED:
            raise IllegalTransition("the project has not stalled")
        project.state = records.PROJECT_STATE_ACTIVE
        return api.RetryProjectResponse(project=project)

    def CloseRegistration(self, request: Any, context: Any) -> Any:
        project = self.world.project(request.project_id)
        project.registration_open = False
        return api.CloseRegistrationResponse(project=project)

    def AddSeedCase(self, request: Any, context: Any) -> Any:
        seed = records.SeedCase(
            seed_case_id=f"seed-{request.request_id}",
            modality=self.world.volumes[request.image_volume_id][0].modality,
            image_volume_id=request.image_volume_id,
            mask_volume_id=request.mask_volume_id,
        )
        if seed not in self.world.seeds:
            self.world.seeds.append(seed)
        return api.AddSeedCaseResponse(seed_case=seed)

    def ListSeedCases(self, request: Any, context: Any) -> Any:
        return api.ListSeedCasesResponse(seed_cases=self.world.seeds)

    def RegisterCases(self, requests: Any, context: Any) -> Iterator[Any]:
        for request in requests:
            case_id = f"case-{request.volume_id}"
            created = case_id not in self.world.cases
            if created:
                self.world.cases[case_id] = records.Case(
                    case_id=case_id,
                    project_id=request.project_id,
                    volume_id=request.volume_id,
                    group_key=request.group_key,
                    state=records.CASE_STATE_REGISTERED,
                    mark=records.CASE_MARK_NONE,
                )
            yield api.RegisterCasesResponse(case=self.world.cases[case_id], created=created)

    def ListCases(self, request: Any, context: Any) -> Any:
        found = [
            case
            for case in self.world.cases.values()
            if (not request.states or case.state in request.states)
            and (not request.HasField("held_out") or case.held_out == request.held_out)
        ]
        return api.ListCasesResponse(cases=found)

    def MarkCase(self, request: Any, context: Any) -> Any:
        if request.case_id not in self.world.cases:
            raise NotFound(f"there is no case {request.case_id!r} in this project")
        self.world.cases[request.case_id].mark = request.mark
        return api.MarkCaseResponse(case=self.world.cases[request.case_id])

    def LeaseNextCase(self, request: Any, context: Any) -> Any:
        for case in self.world.cases.values():
            if case.state == records.CASE_STATE_READY:
                return api.LeaseNextCaseResponse(lease=self.world.new_lease(case))
        states = {case.state for case in self.world.cases.values()}
        complete = states == {records.CASE_STATE_LABELLED}
        none = api.NoCase(
            reason=api.NoCase.REASON_COMPLETE if complete else api.NoCase.REASON_PREPARING,
            message="everything is labelled" if complete else "the model is being trained",
        )
        none.retry_after.FromMilliseconds(10)
        return api.LeaseNextCaseResponse(none=none)

    def LeaseCase(self, request: Any, context: Any) -> Any:
        return api.LeaseCaseResponse(lease=self.world.new_lease(self.world.cases[request.case_id]))

    def RenewLease(self, request: Any, context: Any) -> Any:
        lease = self.world.live_lease(request.lease_id, request.fencing_token)
        seconds = request.duration.ToNanoseconds() / 1e9
        lease.expire_time.CopyFrom(stamp(datetime.now(UTC) + timedelta(seconds=seconds)))
        return api.RenewLeaseResponse(lease=lease)

    def ReleaseLease(self, request: Any, context: Any) -> Any:
        lease = self.world.live_lease(request.lease_id, request.fencing_token)
        lease.state = records.LEASE_STATE_RELEASED
        self.world.cases[lease.case.case_id].state = records.CASE_STATE_READY
        self.world.released.append(request)
        return api.ReleaseLeaseResponse(lease=lease)

    def ListMyLeases(self, request: Any, context: Any) -> Any:
        live = [item for item in self.world.leases.values() if item.state == records.LEASE_STATE_LIVE]
        return api.ListMyLeasesResponse(leases=live)

    def Submit(self, request: Any, context: Any) -> Any:
        lease = self.world.live_lease(request.lease_id, request.fencing_token)
        receipt = self.world.receipts[request.receipt_id]
        lease.state = records.LEASE_STATE_SUBMITTED
        self.world.cases[lease.case.case_id].state = records.CASE_STATE_LABELLED
        submission = records.Submission(
            submission_id=f"submission-{len(self.world.submissions) + 1}",
            project_id=request.project_id,
            case_id=lease.case.case_id,
            round=lease.round,
            mask_volume_id=receipt.mask_volume_id,
            receipt_id=receipt.receipt_id,
            organ_states=request.organ_states,
            time_segments=request.time_segments,
            review_state=records.REVIEW_STATE_ACCEPTED,
        )
        self.world.submissions.append(submission)
        return api.SubmitResponse(submission=submission)

    def ListRounds(self, request: Any, context: Any) -> Any:
        return api.ListRoundsResponse(rounds=self.world.rounds)

    def TrainNow(self, request: Any, context: Any) -> Any:
        if not self.world.submissions:
            raise IllegalTransition("the round has no label yet: correct at least one scan")
        return api.TrainNowResponse(round=records.Round(number=1, labelled_cases=len(self.world.submissions)))

    def WatchRounds(self, request: Any, context: Any) -> Iterator[Any]:
        for event in self.world.events:
            if event.cursor > request.after_cursor:
                yield api.WatchRoundsResponse(event=event)

    def GetReport(self, request: Any, context: Any) -> Any:
        minutes = sum(segment.active_seconds / 60 for item in self.world.submissions for segment in item.time_segments)
        return api.GetReportResponse(
            project=self.world.project(request.project_id),
            rounds=self.world.rounds,
            ledger=records.LedgerSummary(
                minutes_total=minutes,
                minutes_inferred=minutes,
                rounds=[records.RoundMinutes(round=1, cases=len(self.world.submissions), minutes=minutes)],
            ),
        )


@served
class FakeVolumes(volumes_pb2_grpc.VolumeServiceServicer):
    def __init__(self, world: World) -> None:
        self.world = world

    def UploadVolume(self, requests: Any, context: Any) -> Any:
        header = next(requests).header
        data = b"".join(part.chunk for part in requests)
        if hashlib.sha256(data).hexdigest() != header.sha256:
            raise IntegrityError("the upload arrived damaged: send it again", reason="DIGEST_MISMATCH")
        if header.request_id not in self.world.uploads:
            self.world.uploads[header.request_id] = self._ingest(header, data)
        return self.world.uploads[header.request_id]

    def UploadStudy(self, requests: Any, context: Any) -> Any:
        header = next(requests).header
        data = b"".join(part.chunk for part in requests)
        assert header.sha256 == hashlib.sha256(data).hexdigest()
        ct = self.world.add_volume(volumes.Volume(project_id=header.project_id, modality=common.MODALITY_CT), data)
        failure = volumes.SeriesFailure(reason="NOT_AN_IMAGE", message="the series holds a report")
        return volumes.UploadStudyResponse(
            series=[
                volumes.SeriesOutcome(series_instance_uid="1.2", modality="CT", volume=ct),
                volumes.SeriesOutcome(series_instance_uid="1.3", modality="SR", failure=failure),
            ]
        )

    def FindVolumes(self, request: Any, context: Any) -> Any:
        # One a page, so that a client that stops at the first page is found out.
        found = [v for v, _ in self.world.volumes.values() if v.source.accession_number == request.accession_number]
        at = int(request.page_token or 0)
        token = str(at + 1) if at + 1 < len(found) else ""
        return volumes.FindVolumesResponse(volumes=found[at : at + 1], next_page_token=token)

    def CreateUpload(self, request: Any, context: Any) -> Any:
        upload = volumes.Upload(
            upload_id=request.request_id,
            size_bytes=request.size_bytes,
            state=volumes.UPLOAD_STATE_OPEN,
            max_chunk_bytes=500_000,
        )
        if request.request_id not in self.world.pieces:
            self.world.pieces[request.request_id] = (request.header, bytearray())
        upload.received_bytes = len(self.world.pieces[request.request_id][1])
        return volumes.CreateUploadResponse(upload=upload)

    def PutChunk(self, request: Any, context: Any) -> Any:
        arrived = self.world.pieces[request.upload_id][1]
        if request.offset != len(arrived):
            expected = {"expected_offset": str(len(arrived))}
            raise IllegalTransition("go on elsewhere", reason="WRONG_OFFSET", metadata=expected)
        arrived += request.data
        return volumes.PutChunkResponse(received_bytes=len(arrived))

    def FinalizeUpload(self, request: Any, context: Any) -> Any:
        header, data = self.world.pieces[request.upload_id]
        answer = self.world.uploads.setdefault(header.request_id, self._ingest(header, bytes(data)))
        return volumes.FinalizeUploadResponse(volume=answer.volume, receipt=answer.receipt)

    def _ingest(self, header: Any, data: bytes) -> Any:
        volume = self.world.add_volume(
            volumes.Volume(project_id=header.project_id, kind=header.kind, modality=header.modality), data
        )
        answer = volumes.UploadVolumeResponse(volume=volume)
        if header.kind == common.VOLUME_KIND_MASK:
            answer.receipt.receipt_id = f"receipt-{volume.volume_id}"
            answer.receipt.mask_volume_id = volume.volume_id
            answer.receipt.image_volume_id = header.image_volume_id
            self.world.receipts[answer.receipt.receipt_id] = answer.receipt
        return answer

    def DownloadVolume(self, request: Any, context: Any) -> Iterator[Any]:
        if request.volume_id not in self.world.volumes:
            raise NotFound(f"there is no volume {request.volume_id!r} in this project")
        volume, data = self.world.volumes[request.volume_id]
        sha256 = volume.original_digest
        if request.format != common.FILE_FORMAT_NIFTI:
            data = common.FileFormat.Name(request.format).encode() + b" of " + data
            sha256 = hashlib.sha256(data).hexdigest()
        header = volumes.DownloadHeader(volume=volume, sha256=sha256, size_bytes=len(data), format=request.format)
        yield volumes.DownloadVolumeResponse(header=header)
        for start in range(0, len(data), CHUNK):
            yield volumes.DownloadVolumeResponse(chunk=data[start : start + CHUNK])

    def ReadVolume(self, request: Any, context: Any) -> Iterator[Any]:
        # Each voxel is its slice's number.
        shape = (request.slice_count or 9, 8 >> request.level, 4 >> request.level)
        header = volumes.ReadVolumeHeader(
            first_slice=request.first_slice,
            slices=shape[0],
            rows=shape[1],
            columns=shape[2],
            voxel_type=volumes.VOXEL_TYPE_INT16,
            geometry=common.Geometry(spacing_mm=[0.5, 0.75, 3.0]),
            window_low=-160,
            window_high=240,
        )
        yield volumes.ReadVolumeResponse(header=header)
        for number in range(request.first_slice, request.first_slice + shape[0]):
            yield volumes.ReadVolumeResponse(chunk=number.to_bytes(2, "little") * (shape[1] * shape[2]))

    def RankSlices(self, request: Any, context: Any) -> Any:
        ranks = self.world.slice_ranks.get(request.mask_volume_id)
        if ranks is None:
            raise NotFound("nothing is known of the slices of this volume", reason="NO_PREDICTION")
        return volumes.RankSlicesResponse(slices=ranks[: request.limit or None])


@served
class FakeInference(inference_pb2_grpc.InferenceServiceServicer):
    def __init__(self, world: World) -> None:
        self.world = world

    def Segment(self, requests: Any, context: Any) -> Iterator[Any]:
        header = next(requests).header
        data = b"".join(part.chunk for part in requests)
        assert header.sha256 == hashlib.sha256(data).hexdigest()
        yield inference.SegmentResponse(progress=inference.SegmentProgress(slices_done=3, slices_total=3))
        mask = data[::-1]
        quality = common.OrganQuality(
            organ_id="liver", soft_dice_confidence=0.9, predicted_ml=1500, components=1, slices=3
        )
        result = inference.SegmentResult(
            model_version_id="model-1",
            sha256=hashlib.sha256(mask).hexdigest(),
            quality=[quality],
            format=header.result_format or header.format,
        )
        yield inference.SegmentResponse(result=result)
        yield inference.SegmentResponse(chunk=mask)

    def ListModels(self, request: Any, context: Any) -> Any:
        return inference.ListModelsResponse(models=reversed(self.world.models.values()))

    def GetModel(self, request: Any, context: Any) -> Any:
        for model in self.world.models.values():
            if model.active if request.model.active else model.model_version_id == request.model.model_version_id:
                return inference.GetModelResponse(model=model)
        raise ModelNotReady("no model serves yet")

    def UploadPackage(self, requests: Any, context: Any) -> Any:
        manifest = next(requests).header.manifest
        self.world.onnx = b"".join(part.chunk for part in requests)
        return inference.UploadPackageResponse(package_digest=hashlib.sha256(manifest).hexdigest())

    def RegisterModel(self, request: Any, context: Any) -> Any:
        number = len(self.world.models) + 1
        model = inference.Model(
            model_version_id=f"model-{number}",
            project_id=request.project_id,
            role=request.role,
            version=number,
            package_digest=request.package_digest,
        )
        self.world.models[model.model_version_id] = model
        return inference.RegisterModelResponse(model=model)

    def ActivateModel(self, request: Any, context: Any) -> Any:
        active = [model.model_version_id for model in self.world.models.values() if model.active]
        if request.expected_current != "".join(active):
            raise VersionConflict("another version serves meanwhile")
        for model in self.world.models.values():
            model.active = model.model_version_id == request.model_version_id
        return inference.ActivateModelResponse(model=self.world.models[request.model_version_id])


@served
class FakeTrainer(trainer_pb2_grpc.TrainerServiceServicer):
    def __init__(self, world: World) -> None:
        self.world = world

    def ListRuns(self, request: Any, context: Any) -> Any:
        return trainer.ListRunsResponse(runs=reversed(self.world.runs.values()))

    def GetRun(self, request: Any, context: Any) -> Any:
        if request.run_id not in self.world.runs:
            raise NotFound(f"there is no run {request.run_id!r} in this project")
        return trainer.GetRunResponse(run=self.world.runs[request.run_id])

    def CancelRun(self, request: Any, context: Any) -> Any:
        run = self.world.runs[request.run_id]
        run.state = trainer.RUN_STATE_CANCELLED
        return trainer.CancelRunResponse(run=run)

    def GetTrainingLimits(self, request: Any, context: Any) -> Any:
        training = self.world.projects[request.project_id].policy.training
        limits = trainer.TrainingLimits(
            version=1,
            window=training.window if training.window.start else None,
            gpu_seconds_budget=training.gpu_seconds_budget,
        )
        held = "waits for its window: opens at 20:00 Europe/Berlin" if training.window.start else ""
        return trainer.GetTrainingLimitsResponse(
            limits=limits, gpu_seconds=1234.5, gpus_per_process=1, held_reason=held
        )

    def WatchRun(self, request: Any, context: Any) -> Iterator[Any]:
        for metric in self.world.metrics:
            if metric.cursor > request.after_cursor:
                yield trainer.WatchRunResponse(metric=metric)
        yield trainer.WatchRunResponse(run=self.world.runs[request.run_id])
