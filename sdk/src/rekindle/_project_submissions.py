"""A project's submissions: listed, reviewed, withdrawn, and the ledger of the time that they took."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Literal

from rekindle._call import new_request_id
from rekindle._project_base import ProjectBase
from rekindle.api.scheduler.v1 import annotation_pb2 as annotation
from rekindle.api.scheduler.v1 import records_pb2 as records
from rekindle.api.scheduler.v1 import scheduler_pb2 as scheduler
from rekindle.convert import number_of
from rekindle.records import LedgerEntry, Submission

VerdictName = Literal["accept", "reject"]


class ProjectSubmissions(ProjectBase):
    """The part of a project's handle that deals with submissions."""

    def submissions(
        self, *, case_id: str = "", round: int = 0, review_states: Iterable[str] = (), mine: bool = False
    ) -> Iterator[Submission]:
        """Submissions, oldest first; of these review states, or your own, alone."""
        states = [number_of(records.ReviewState, state) for state in review_states]
        pages = self._pages(
            self._services.scheduler.ListSubmissions,
            scheduler.ListSubmissionsRequest,
            case_id=case_id,
            round=round,
            review_states=states,
            mine=mine,
        )
        return (Submission.from_proto(item) for page in pages for item in page.submissions)

    def review(
        self, submission_id: str, verdict: VerdictName, *, comment: str = "", supersede: bool = False
    ) -> Submission:
        """Accepts or rejects a label. `supersede` accepts one in place of another that counts by now.

        Raises PermissionDenied unless you may review, and for your own label where the project forbids that.
        """
        request = annotation.ReviewSubmissionRequest(
            request_id=new_request_id(),
            project_id=self.id,
            submission_id=submission_id,
            verdict=number_of(annotation.ReviewVerdict, verdict),
            comment=comment,
            supersede=supersede,
        )
        answer = self._services.scheduler.ReviewSubmission(request)
        return Submission.from_proto(answer.submission)

    def withdraw(self, submission_id: str, reason: str = "") -> Submission:
        """Takes a label back. Raises IllegalTransition (IN_SNAPSHOT) once it was trained on: correct it instead."""
        request = annotation.WithdrawSubmissionRequest(
            request_id=new_request_id(), project_id=self.id, submission_id=submission_id, reason=reason
        )
        answer = self._services.scheduler.WithdrawSubmission(request)
        return Submission.from_proto(answer.submission)

    def ledger(self) -> Iterator[LedgerEntry]:
        """Every stretch of time, oldest first."""
        pages = self._pages(self._services.scheduler.ListLedger, scheduler.ListLedgerRequest)
        return (LedgerEntry.from_proto(item) for page in pages for item in page.entries)
