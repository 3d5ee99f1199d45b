"""What every part of a project's handle shares: what it knows of the project, and how it talks."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Self

from rekindle._call import new_request_id
from rekindle._services import Services
from rekindle.api.common.v1 import common_pb2 as common
from rekindle.api.scheduler.v1 import records_pb2 as records
from rekindle.api.scheduler.v1 import scheduler_pb2 as scheduler
from rekindle.config import Organ, Policy
from rekindle.convert import from_proto, name_of

PAGE_SIZE = 500


class ProjectBase:
    """The project's record and its calls."""

    def __init__(self, services: Services, project: records.Project) -> None:
        self._services = services
        self._project = project

    @property
    def id(self) -> str:
        return self._project.project_id

    @property
    def name(self) -> str:
        return self._project.display_name

    @property
    def organs(self) -> tuple[Organ, ...]:
        return tuple(from_proto(organ, Organ) for organ in self._project.organs)

    @property
    def modality(self) -> str:
        return name_of(common.Modality, self._project.target_modality).upper()

    @property
    def state(self) -> str:
        """ "draft", "igniting", "active", "complete" or "stalled"; see `state_reason`."""
        return name_of(records.ProjectState, self._project.state)

    @property
    def state_reason(self) -> str:
        return self._project.state_reason

    @property
    def counts(self) -> dict[str, int]:
        """Cases by what became of them."""
        counts = self._project.counts
        return {field.name: getattr(counts, field.name) for field in counts.DESCRIPTOR.fields}

    @property
    def policy(self) -> Policy:
        """The policy as the service completed it."""
        return Policy.from_proto(self._project.policy)

    @property
    def registration_open(self) -> bool:
        return self._project.registration_open

    @property
    def current_round(self) -> int:
        return self._project.current_round

    @property
    def active_model_version_id(self) -> str:
        return self._project.active_model_version_id

    def refresh(self) -> Self:
        self._project = self._get(self._services.scheduler.GetProject, scheduler.GetProjectRequest).project
        return self

    def _get(self, method: Callable[..., Any], request_type: Callable[..., Any]) -> Any:
        return method(request_type(project_id=self.id))

    def _change(self, method: Callable[..., Any], request_type: Callable[..., Any], **fields: Any) -> Self:
        request = request_type(request_id=new_request_id(), project_id=self.id, **fields)
        self._project = method(request).project
        return self

    def _pages(self, method: Callable[..., Any], request_type: Callable[..., Any], **fields: Any) -> Iterator[Any]:
        token = ""
        while True:
            request = request_type(project_id=self.id, page_size=PAGE_SIZE, page_token=token, **fields)
            page = method(request)
            yield page
            token = page.next_page_token
            if not token:
                return
