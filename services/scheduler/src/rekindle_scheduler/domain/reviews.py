"""What becomes of a label after it was handed in: reviews and withdrawals, decided from its state alone."""

from __future__ import annotations

from collections.abc import Iterable

from rekindle.errors import IllegalTransition, PermissionDenied

from rekindle_scheduler.domain.cases import Case
from rekindle_scheduler.domain.enums import ReviewState, ReviewVerdict
from rekindle_scheduler.domain.ids import AnnotatorId, SubmissionId
from rekindle_scheduler.domain.policy import ReviewPolicy
from rekindle_scheduler.domain.records import Submission


def check_reviewer(policy: ReviewPolicy, submission: Submission, reviewer: AnnotatorId) -> None:
    """PermissionDenied for one's own label, where the project does not allow that."""
    if submission.annotator_id == reviewer and policy.required and not policy.allow_own:
        raise PermissionDenied(
            "a label is reviewed by somebody else than its annotator in this project", reason="OWN_SUBMISSION"
        )


def check_review(case: Case, submission: Submission, verdict: ReviewVerdict, *, supersede: bool) -> None:
    """IllegalTransition, in words, where the label cannot be reviewed so."""
    match submission.review_state:
        case ReviewState.WITHDRAWN:
            raise IllegalTransition("the label was withdrawn: it cannot be reviewed", reason="SUBMISSION_WITHDRAWN")
        case ReviewState.REJECTED:
            raise IllegalTransition("the label was rejected already", reason="SUBMISSION_REVIEWED")
        case ReviewState.ACCEPTED:
            _check_second_look(case, submission, verdict)
        case ReviewState.PENDING | ReviewState.DRAFT:
            if verdict == ReviewVerdict.ACCEPT:
                _check_room(case, submission, supersede)


def check_withdrawal(case: Case, submission: Submission) -> None:
    """IllegalTransition, in words, where the label cannot be taken back any more."""
    match submission.review_state:
        case ReviewState.WITHDRAWN:
            raise IllegalTransition("the label was withdrawn already", reason="SUBMISSION_WITHDRAWN")
        case ReviewState.REJECTED:
            raise IllegalTransition("the label was rejected: it does not count anyway", reason="SUBMISSION_REVIEWED")
        case ReviewState.ACCEPTED:
            if submission.snapshot_round:
                raise IllegalTransition(
                    f"the label is in the snapshot of round {submission.snapshot_round}: correct it instead",
                    reason="IN_SNAPSHOT",
                    metadata={"round": str(submission.snapshot_round)},
                )
            _check_counting(case, submission)
        case ReviewState.PENDING | ReviewState.DRAFT:
            return


def standing_before(submission: Submission, of_case: Iterable[Submission]) -> SubmissionId | None:
    """The label that counts again when this one ceases to: the nearest accepted one that it had superseded."""
    by_id = {earlier.submission_id: earlier for earlier in of_case}
    before = submission.supersedes_submission_id
    while before is not None and before in by_id:
        if by_id[before].review_state == ReviewState.ACCEPTED:
            return before
        before = by_id[before].supersedes_submission_id
    return None


def _check_second_look(case: Case, submission: Submission, verdict: ReviewVerdict) -> None:
    _check_counting(case, submission)
    if verdict == ReviewVerdict.ACCEPT and submission.reviewed_by is not None:
        raise IllegalTransition("the label was reviewed and accepted already", reason="SUBMISSION_REVIEWED")


def _check_counting(case: Case, submission: Submission) -> None:
    if case.submission_id != submission.submission_id:
        raise IllegalTransition(
            "the label has been superseded by a newer one: it does not count any more",
            reason="SUBMISSION_SUPERSEDED",
            metadata={"submission_id": case.submission_id or ""},
        )


def _check_room(case: Case, submission: Submission, supersede: bool) -> None:
    """Whether the label may take the case's place."""
    waiting = case.pending_submission_id
    if waiting is not None and waiting != submission.submission_id:
        raise IllegalTransition(
            "another label of the case waits for a reviewer: review that one first",
            reason="CASE_IN_REVIEW",
            metadata={"submission_id": waiting},
        )
    if case.is_held:
        raise IllegalTransition(
            "somebody corrects the case at the moment: review the label when they have finished", reason="CASE_LEASED"
        )
    standing = case.submission_id
    expected = submission.supersedes_submission_id if submission.review_state == ReviewState.PENDING else None
    if standing is not None and standing != expected and not supersede:
        raise IllegalTransition(
            f"submission {standing} counts for the case by now: say supersede to put this one in its place",
            reason="CASE_LABELLED",
            metadata={"submission_id": standing},
        )
