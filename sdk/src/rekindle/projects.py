"""A project: one transfer from a seed set to a target set."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Self

from rekindle._call import new_request_id
from rekindle._project_cases import ProjectCases
from rekindle._project_leases import ProjectLeases
from rekindle._project_models import ProjectModels
from rekindle._project_results import ProjectResults
from rekindle._project_submissions import ProjectSubmissions
from rekindle._project_volumes import ProjectVolumes
from rekindle.api.scheduler.v1 import scheduler_pb2 as scheduler
from rekindle.config import Policy
from rekindle.models import Model
from rekindle.purges import ProjectPurges
from rekindle.records import Event, Ledger, Round


@dataclass(frozen=True, kw_only=True)
class Report:
    """Rounds and ledger of a project at one moment."""

    rounds: tuple[Round, ...]
    ledger: Ledger


class Project(
    ProjectVolumes, ProjectCases, ProjectLeases, ProjectSubmissions, ProjectModels, ProjectResults, ProjectPurges
):
    """A handle on one project."""

    def start(self, *, igniter: Model | None = None) -> Self:
        """Starts the loop: trains the igniter on the seed set, or begins with a registered model."""
        return self._change(
            self._services.scheduler.StartProject,
            scheduler.StartProjectRequest,
            igniter_model_version_id=igniter.id if igniter else "",
        )

    def update_policy(self, policy: Policy) -> Self:
        """Replaces the policy; what it leaves None takes its default, but reviews and detached leases stay as they are.

        To change one rule, give `dataclasses.replace(project.policy, ...)`. Raises VersionConflict when the policy
        was changed since `refresh`.
        """
        return self._change(
            self._services.scheduler.UpdatePolicy,
            scheduler.UpdatePolicyRequest,
            policy=policy.to_proto(),
            policy_version=self._project.policy_version,
        )

    def retry(self) -> Self:
        """Lets a stalled project try its failed step again."""
        return self._change(self._services.scheduler.RetryProject, scheduler.RetryProjectRequest)

    def train_now(self) -> Round:
        """Closes the open round with the labels that it has, and trains."""
        request = scheduler.TrainNowRequest(request_id=new_request_id(), project_id=self.id)
        return Round.from_proto(self._services.scheduler.TrainNow(request).round)

    def round(self, number: int) -> Round:
        request = scheduler.GetRoundRequest(project_id=self.id, number=number)
        return Round.from_proto(self._services.scheduler.GetRound(request).round)

    def rounds(self) -> list[Round]:
        """All rounds, the igniter's first."""
        pages = self._pages(self._services.scheduler.ListRounds, scheduler.ListRoundsRequest)
        return [Round.from_proto(item) for page in pages for item in page.rounds]

    def watch(self, *, after_cursor: int = 0, timeout_s: float | None = None) -> Iterator[Event]:
        """Yields the project's events after the cursor, then live ones, until the caller stops.

        Resumes after the last event when the service was away for a moment.
        """

        def events(cursor: int) -> Iterator[Event]:
            request = scheduler.WatchRoundsRequest(project_id=self.id, after_cursor=cursor)
            answers = self._services.scheduler.WatchRounds(request, timeout=timeout_s or 24 * 3600)
            return (Event.from_proto(answer.event) for answer in answers)

        return self._services.caller.follow(events, after_cursor)

    def report(self) -> Report:
        """Rounds and minutes so far."""
        answer = self._get(self._services.scheduler.GetReport, scheduler.GetReportRequest)
        return Report(
            rounds=tuple(Round.from_proto(item) for item in answer.rounds),
            ledger=Ledger.from_proto(answer.ledger),
        )
