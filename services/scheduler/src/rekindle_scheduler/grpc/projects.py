# ruff: noqa: N802 (the methods have the names of the API)
"""The servicer's methods on projects and their seed sets."""

from __future__ import annotations

from typing import Any

from rekindle.api.scheduler.v1 import scheduler_pb2 as pb

from rekindle_scheduler import wire
from rekindle_scheduler.domain.ids import ModelVersionId, ProjectId, ReceiptId, VolumeId
from rekindle_scheduler.domain.volumes import Receipt, Volume
from rekindle_scheduler.grpc.base import Handlers
from rekindle_scheduler.grpc.convert import project_to_api, seed_case_to_api
from rekindle_scheduler.grpc.pages import next_token, page_size, place_of
from rekindle_scheduler.grpc.policies import policy_from_api
from rekindle_scheduler.ports import ModelVersion
from rekindle_scheduler.state import UnitOfWork
from rekindle_scheduler.usecases import cases, projects


class ProjectHandlers(Handlers):
    """Projects and seed cases."""

    async def CreateProject(self, request: pb.CreateProjectRequest, _: Any) -> pb.CreateProjectResponse:
        organs = [wire.organ_from_api(organ) for organ in request.organs]
        modality = wire.modality_from_api(request.target_modality, "target_modality")
        policy = policy_from_api(request.policy, request.HasField("policy"))
        return await self._mutate(
            request,
            pb.CreateProjectResponse,
            lambda uow, principal: pb.CreateProjectResponse(
                project=project_to_api(
                    projects.create_project(
                        uow,
                        principal,
                        display_name=request.display_name,
                        organs=organs,
                        target_modality=modality,
                        policy=policy,
                    )
                )
            ),
        )

    async def GetProject(self, request: pb.GetProjectRequest, _: Any) -> pb.GetProjectResponse:
        project_id = ProjectId(request.project_id)
        details = await self._read(lambda uow, principal: projects.project_details(uow, project_id))
        return pb.GetProjectResponse(project=project_to_api(details))

    async def ListProjects(self, request: pb.ListProjectsRequest, _: Any) -> pb.ListProjectsResponse:
        size, (after,) = page_size(request.page_size), place_of(request, [0])
        found = await self._read(lambda uow, principal: projects.list_projects(uow, after=after, limit=size + 1))
        token = next_token(request, [found[size - 1][0]]) if len(found) > size else ""
        listed = [project_to_api(details) for _, details in found[:size]]
        return pb.ListProjectsResponse(projects=listed, next_page_token=token)

    async def StartProject(self, request: pb.StartProjectRequest, _: Any) -> pb.StartProjectResponse:
        project_id = ProjectId(request.project_id)

        def igniter() -> ModelVersion | None:
            version = request.igniter_model_version_id
            inference = self._backend.inference
            return inference.model(project_id, ModelVersionId(version)) if version else None

        return await self._mutate_prepared(
            request,
            pb.StartProjectResponse,
            igniter,
            lambda uow, principal, model: pb.StartProjectResponse(
                project=project_to_api(projects.start_project(uow, project_id, model))
            ),
        )

    async def UpdatePolicy(self, request: pb.UpdatePolicyRequest, _: Any) -> pb.UpdatePolicyResponse:
        project_id = ProjectId(request.project_id)

        def work(uow: UnitOfWork, principal: Any) -> pb.UpdatePolicyResponse:
            current = uow.projects.get(project_id).policy
            policy = policy_from_api(request.policy, request.HasField("policy"), current)
            details = projects.update_policy(uow, project_id, policy, request.policy_version)
            return pb.UpdatePolicyResponse(project=project_to_api(details))

        return await self._mutate(request, pb.UpdatePolicyResponse, work)

    async def CloseRegistration(self, request: pb.CloseRegistrationRequest, _: Any) -> pb.CloseRegistrationResponse:
        project_id = ProjectId(request.project_id)
        return await self._mutate(
            request,
            pb.CloseRegistrationResponse,
            lambda uow, principal: pb.CloseRegistrationResponse(
                project=project_to_api(projects.close_registration(uow, project_id))
            ),
        )

    async def RetryProject(self, request: pb.RetryProjectRequest, _: Any) -> pb.RetryProjectResponse:
        project_id = ProjectId(request.project_id)
        return await self._mutate(
            request,
            pb.RetryProjectResponse,
            lambda uow, principal: pb.RetryProjectResponse(
                project=project_to_api(projects.retry_project(uow, project_id))
            ),
        )

    async def AddSeedCase(self, request: pb.AddSeedCaseRequest, _: Any) -> pb.AddSeedCaseResponse:
        project_id = ProjectId(request.project_id)
        mask_id = VolumeId(request.mask_volume_id)

        def look_up() -> tuple[Volume, Receipt]:
            inference = self._backend.inference
            image, _mask = inference.volumes(project_id, [VolumeId(request.image_volume_id), mask_id])
            return image, inference.receipt(project_id, ReceiptId(request.receipt_id))

        return await self._mutate_prepared(
            request,
            pb.AddSeedCaseResponse,
            look_up,
            lambda uow, principal, found: pb.AddSeedCaseResponse(
                seed_case=seed_case_to_api(
                    cases.add_seed_case(
                        uow,
                        project_id,
                        image=found[0],
                        mask_volume_id=mask_id,
                        receipt=found[1],
                        not_reviewed=request.not_reviewed_organ_ids,
                    )
                )
            ),
        )

    async def ListSeedCases(self, request: pb.ListSeedCasesRequest, _: Any) -> pb.ListSeedCasesResponse:
        size, (after,) = page_size(request.page_size), place_of(request, [0])
        project_id = ProjectId(request.project_id)
        found = await self._read(
            lambda uow, principal: cases.list_seed_cases(uow, project_id, after=after, limit=size + 1)
        )
        token = next_token(request, [found[size - 1][0]]) if len(found) > size else ""
        listed = [seed_case_to_api(seed_case) for _, seed_case in found[:size]]
        return pb.ListSeedCasesResponse(seed_cases=listed, next_page_token=token)
