# ruff: noqa: N802 (the methods have the names of the API)
"""The servicer's methods on projects and their seed sets."""

from __future__ import annotations

from typing import Any

from rekindle.api.common.v1 import common_pb2
from rekindle.api.scheduler.v1 import records_pb2
from rekindle.api.scheduler.v1 import scheduler_pb2 as pb
from rekindle.convert import from_proto, to_proto, word_of
from rekindle.vocabulary import Modality, Organ
from rekindle_servicekit.context import principal
from rekindle_servicekit.pages import Paging

from rekindle_scheduler.domain.ids import ModelVersionId, ProjectId, ReceiptId, VolumeId
from rekindle_scheduler.domain.policy import Policy
from rekindle_scheduler.domain.volumes import Receipt, Volume
from rekindle_scheduler.grpc.base import Handlers
from rekindle_scheduler.grpc.convert import policy_from_proto, project_to_proto
from rekindle_scheduler.ports import ModelVersion
from rekindle_scheduler.state import UnitOfWork
from rekindle_scheduler.usecases import cases, projects


class ProjectHandlers(Handlers):
    """Projects and seed cases."""

    async def CreateProject(self, request: pb.CreateProjectRequest, _: Any) -> pb.CreateProjectResponse:
        organs = [from_proto(organ, Organ, f"organs[{index}]") for index, organ in enumerate(request.organs)]
        modality = word_of(Modality, common_pb2.Modality, request.target_modality, "target_modality")
        policy = policy_from_proto(request.policy) if request.HasField("policy") else Policy()

        def work(uow: UnitOfWork) -> pb.CreateProjectResponse:
            details = projects.create_project(
                uow,
                principal(),
                display_name=request.display_name,
                organs=organs,
                target_modality=modality,
                policy=policy,
            )
            return pb.CreateProjectResponse(project=project_to_proto(details))

        return await self.mutate(request, pb.CreateProjectResponse, work)

    async def GetProject(self, request: pb.GetProjectRequest, _: Any) -> pb.GetProjectResponse:
        details = await self.read(lambda uow: projects.project_details(uow, ProjectId(request.project_id)))
        return pb.GetProjectResponse(project=project_to_proto(details))

    async def ListProjects(self, request: pb.ListProjectsRequest, _: Any) -> pb.ListProjectsResponse:
        paging = Paging(request, [0])
        rows = await self.read(lambda uow: projects.list_projects(uow, after=paging.after[0], limit=paging.limit))
        page = paging.page(rows, lambda row: [row[0]])
        listed = [project_to_proto(details) for _, details in page.items]
        return pb.ListProjectsResponse(projects=listed, next_page_token=page.next_token)

    async def StartProject(self, request: pb.StartProjectRequest, _: Any) -> pb.StartProjectResponse:
        project_id = ProjectId(request.project_id)

        def igniter() -> ModelVersion | None:
            version = request.igniter_model_version_id
            return self._inference.model(project_id, ModelVersionId(version)) if version else None

        def work(uow: UnitOfWork, model: ModelVersion | None) -> pb.StartProjectResponse:
            return pb.StartProjectResponse(project=project_to_proto(projects.start_project(uow, project_id, model)))

        return await self.mutate(request, pb.StartProjectResponse, work, prepare=igniter)

    async def UpdatePolicy(self, request: pb.UpdatePolicyRequest, _: Any) -> pb.UpdatePolicyResponse:
        project_id = ProjectId(request.project_id)

        def work(uow: UnitOfWork) -> pb.UpdatePolicyResponse:
            current = uow.projects.get(project_id).policy
            policy = policy_from_proto(request.policy, current) if request.HasField("policy") else Policy()
            details = projects.update_policy(uow, project_id, policy, request.policy_version)
            return pb.UpdatePolicyResponse(project=project_to_proto(details))

        return await self.mutate(request, pb.UpdatePolicyResponse, work)

    async def CloseRegistration(self, request: pb.CloseRegistrationRequest, _: Any) -> pb.CloseRegistrationResponse:
        def work(uow: UnitOfWork) -> pb.CloseRegistrationResponse:
            details = projects.close_registration(uow, ProjectId(request.project_id))
            return pb.CloseRegistrationResponse(project=project_to_proto(details))

        return await self.mutate(request, pb.CloseRegistrationResponse, work)

    async def RetryProject(self, request: pb.RetryProjectRequest, _: Any) -> pb.RetryProjectResponse:
        def work(uow: UnitOfWork) -> pb.RetryProjectResponse:
            details = projects.retry_project(uow, ProjectId(request.project_id))
            return pb.RetryProjectResponse(project=project_to_proto(details))

        return await self.mutate(request, pb.RetryProjectResponse, work)

    async def AddSeedCase(self, request: pb.AddSeedCaseRequest, _: Any) -> pb.AddSeedCaseResponse:
        project_id, mask_id = ProjectId(request.project_id), VolumeId(request.mask_volume_id)

        def look_up() -> tuple[Volume, Receipt]:
            image, _mask = self._inference.volumes(project_id, [VolumeId(request.image_volume_id), mask_id])
            return image, self._inference.receipt(project_id, ReceiptId(request.receipt_id))

        def work(uow: UnitOfWork, answers: tuple[Volume, Receipt]) -> pb.AddSeedCaseResponse:
            image, receipt = answers
            seed_case = cases.add_seed_case(
                uow,
                project_id,
                image=image,
                mask_volume_id=mask_id,
                receipt=receipt,
                not_reviewed=request.not_reviewed_organ_ids,
            )
            return pb.AddSeedCaseResponse(seed_case=to_proto(seed_case, records_pb2.SeedCase))

        return await self.mutate(request, pb.AddSeedCaseResponse, work, prepare=look_up)

    async def ListSeedCases(self, request: pb.ListSeedCasesRequest, _: Any) -> pb.ListSeedCasesResponse:
        project_id, paging = ProjectId(request.project_id), Paging(request, [0])
        rows = await self.read(
            lambda uow: cases.list_seed_cases(uow, project_id, after=paging.after[0], limit=paging.limit)
        )
        page = paging.page(rows, lambda row: [row[0]])
        listed = [to_proto(seed_case, records_pb2.SeedCase) for _, seed_case in page.items]
        return pb.ListSeedCasesResponse(seed_cases=listed, next_page_token=page.next_token)
