"""A project: one transfer from a seed set to a target set."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Self

from rekindle._call import new_request_id
from rekindle._project_cases import ProjectCases
from rekindle._project_labels import ProjectLabels
from rekindle._project_models import ProjectModels
from rekindle._project_results import ProjectResults
from rekindle._project_sources import ProjectSources
from rekindle.api.scheduler.v1 import records_pb2 as records
from rekindle.api.scheduler.v1 import scheduler_pb2 as scheduler
from rekindle.config import Policy, duration, enum_value
from rekindle.errors import DeadlineExceeded, IllegalTransition, InvalidInput
from rekindle.leases import Lease
from rekindle.models import Model
from rekindle.purges import ProjectPurges
from rekindle.records import Event, Ledger, LedgerEntry, NoCase, Round, Submission
from rekindle.tickets import read_token


@dataclass(frozen=True, kw_only=True)
class Report:
    """Rounds and ledger of a project at one moment."""

    rounds: tuple[Round, ...]
    ledger: Ledger


class Project(ProjectResults, ProjectCases, ProjectLabels, ProjectSources, ProjectModels, ProjectPurges):
    """A handle on one project."""

    def start(self, *, igniter: Model | None = None) -> Self:
        """Starts the loop: trains the igniter on the seed set, or begins with a registered model."""
        return self._change(
            self._services.scheduler.StartProject,
            scheduler.StartProjectRequest,
            igniter_model_version_id=igniter.id if igniter else "",
        )

    def update_policy(self, policy: Policy) -> Self:
        """Replaces the policy. Raises VersionConflict when somebody changed it since `refresh`."""
        return self._change(
            self._services.scheduler.UpdatePolicy,
            scheduler.UpdatePolicyRequest,
            policy=policy.to_proto(),
            policy_version=self._project.policy_version,
        )

    def retry(self) -> Self:
        """Lets a stalled project try its failed step again."""
        return self._change(self._services.scheduler.RetryProject, scheduler.RetryProjectRequest)

    def try_lease_next(self, minutes: float | None = None) -> Lease | NoCase:
        """Leases the next case of the round, or says why there is none now."""
        request = scheduler.LeaseNextCaseRequest(request_id=new_request_id(), project_id=self.id)
        if minutes is not None:
            request.duration.CopyFrom(duration(minutes * 60))
        answer = self._services.scheduler.LeaseNextCase(request)
        if answer.WhichOneof("outcome") == "lease":
            return Lease(self._services, answer.lease, self.organs)
        return NoCase.from_proto(answer.none)

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
                waited = f" became free within {wait_s:.0f} s" if wait_s else " is free now"
                raise DeadlineExceeded(f"no case{waited}: {outcome.message}", reason="NO_CASE_NOW")
            time.sleep(pause_s)

    def lease(
        self, case_id: str, minutes: float | None = None, *, round: int = 0, revise: bool = False, tool: str = ""
    ) -> Lease:
        """Leases one case by its id, in or out of the round's selection.

        `revise` leases a labelled case, to correct its label: that counts until the correction does.
        """
        request = scheduler.LeaseCaseRequest(
            request_id=new_request_id(), project_id=self.id, case_id=case_id, round=round, revise=revise, tool=tool
        )
        if minutes is not None:
            request.duration.CopyFrom(duration(minutes * 60))
        answer = self._services.scheduler.LeaseCase(request)
        return Lease(self._services, answer.lease, self.organs)

    def my_leases(self) -> list[Lease]:
        """The caller's live leases."""
        answer = self._get(self._services.scheduler.ListMyLeases, scheduler.ListMyLeasesRequest)
        return [Lease(self._services, lease, self.organs, fresh=False) for lease in answer.leases]

    def resume_lease(self, token: str) -> Lease:
        """Takes up a lease again that was written down with `Lease.token`.

        Also one that has run out: what was drawn can still be submitted, and counts when nobody else has
        taken the case meanwhile. Raises InvalidInput for a text that is no lease of this project.
        """
        written = read_token(token)
        if written.lease.project_id != self.id:
            raise InvalidInput("this lease belongs to another project: take it up there")
        known = written.lease.lease_id, written.lease.fencing_token
        # One that another tool has taken up since has another token: what comes from here is then kept, not counted.
        live = (lease for lease in self.my_leases() if (lease.id, lease.fencing_token) == known)
        lease = next(live, None) or Lease(self._services, written.lease, self.organs, fresh=False)
        lease.restore(token)
        return lease

    def submissions(
        self, *, case_id: str = "", round: int = 0, review_states: Iterable[str] = (), mine: bool = False
    ) -> Iterator[Submission]:
        """Submissions, oldest first; of these review states, or your own, alone."""
        states = [enum_value(records.ReviewState, "REVIEW_STATE", state) for state in review_states]
        pages = self._pages(
            self._services.scheduler.ListSubmissions,
            scheduler.ListSubmissionsRequest,
            case_id=case_id,
            round=round,
            review_states=states,
            mine=mine,
        )
        return (Submission.from_proto(item) for page in pages for item in page.submissions)

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

        Goes on after the last event when the service was away for a moment.
        """

        def events(cursor: int) -> Iterator[Event]:
            request = scheduler.WatchRoundsRequest(project_id=self.id, after_cursor=cursor)
            answers = self._services.scheduler.WatchRounds(request, timeout=timeout_s or 24 * 3600)
            return (Event.from_proto(answer.event) for answer in answers)

        return self._services.caller.follow(events, after_cursor)

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
