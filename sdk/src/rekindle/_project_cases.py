"""A project's cases: seed cases and target cases, registered, listed and marked."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, Self

from rekindle._call import content_request_id, new_request_id
from rekindle._project_base import ProjectBase
from rekindle.api.scheduler.v1 import records_pb2 as records
from rekindle.api.scheduler.v1 import scheduler_pb2 as scheduler
from rekindle.config import ModalityName
from rekindle.convert import number_of
from rekindle.records import Case, SeedCase
from rekindle.volumes import Source, upload_image, upload_mask


class ProjectCases(ProjectBase):
    """The part of a project's handle that deals with cases."""

    def add_seed_case(
        self, image: Source, mask: Source, *, modality: ModalityName, not_reviewed: Iterable[str] = ()
    ) -> str:
        """Adds one labelled case of the public set; `not_reviewed` names organs that nobody labelled in it.

        Adding the same files again is the same seed case.
        """
        image_volume_id = upload_image(self._services, self.id, image, modality)
        receipt = upload_mask(self._services, self.id, mask, image_volume_id, self._project.organs)
        request = scheduler.AddSeedCaseRequest(
            project_id=self.id,
            image_volume_id=image_volume_id,
            mask_volume_id=receipt.mask_volume_id,
            receipt_id=receipt.receipt_id,
            not_reviewed_organ_ids=not_reviewed,
        )
        request.request_id = content_request_id(request)
        answer = self._services.scheduler.AddSeedCase(request)
        return answer.seed_case.seed_case_id

    def seed_cases(self) -> list[SeedCase]:
        """The labelled public cases."""
        pages = self._pages(self._services.scheduler.ListSeedCases, scheduler.ListSeedCasesRequest)
        return [SeedCase.from_proto(item) for page in pages for item in page.seed_cases]

    def add_case(self, image: Source, *, group_key: str = "") -> Case:
        """Uploads one target volume and registers it. `group_key` joins the cases of one patient."""
        return self.register_cases([(upload_image(self._services, self.id, image, self.modality), group_key)])[0]

    def register_cases(self, volumes_and_groups: Iterable[tuple[str, str]]) -> list[Case]:
        """Registers uploaded volumes as target cases, many in one stream: (volume id, group key) each.

        A volume that is registered already answers its case, so doing it again is harmless.
        """
        requests = [
            scheduler.RegisterCasesRequest(project_id=self.id, volume_id=volume_id, group_key=group_key)
            for volume_id, group_key in volumes_and_groups
        ]
        caller = self._services.caller

        def attempt() -> list[Case]:
            answers = self._services.scheduler.RegisterCases(
                iter(requests),
                timeout=caller.timeout_s + len(requests),
            )
            return [Case.from_proto(answer.case) for answer in answers]

        return caller.repeat(attempt) if requests else []

    def close_registration(self) -> Self:
        """No more cases come; draws the held-out ones where the policy gives a number."""
        return self._change(self._services.scheduler.CloseRegistration, scheduler.CloseRegistrationRequest)

    def case(self, case_id: str) -> Case:
        request = scheduler.GetCaseRequest(project_id=self.id, case_id=case_id)
        return Case.from_proto(self._services.scheduler.GetCase(request).case)

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
            "states": [number_of(records.CaseState, state) for state in states],
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
            mark=number_of(records.CaseMark, mark),
        )
        return Case.from_proto(self._services.scheduler.MarkCase(request).case)
