# ruff: noqa: N802 - methods are named as in the protos
"""The scheduler in memory, honest about what the client sees: one project flow without any model."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

from fake_world import World, served, stamp
from rekindle.api.scheduler.v1 import annotation_pb2 as annotation
from rekindle.api.scheduler.v1 import records_pb2 as records
from rekindle.api.scheduler.v1 import scheduler_pb2 as api
from rekindle.api.scheduler.v1 import scheduler_pb2_grpc
from rekindle.errors import IllegalTransition, NotFound, VersionConflict
from rekindle_scheduler.grpc.convert import policy_from_proto, policy_to_proto


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
            policy=_answered(request.policy),
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
        project.policy.CopyFrom(_answered(request.policy))
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

    def TakeUpLease(self, request: Any, context: Any) -> Any:
        lease = self.world.leases[request.lease_id]
        lease.fencing_token += 100
        return annotation.TakeUpLeaseResponse(lease=lease)

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


def _answered(policy: records.Policy) -> records.Policy:
    """The policy with the scheduler's own defaults for what is not set."""
    return policy_to_proto(policy_from_proto(policy))
