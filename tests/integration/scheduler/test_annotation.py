"""Drafts, sessions, corrections and reviews over the scheduler's own wire, with its rounds running."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator
from typing import Any

import grpc
import pytest
from google.protobuf.duration_pb2 import Duration
from rekindle.api.scheduler.v1 import annotation_pb2, records_pb2
from rekindle.errors import IllegalTransition, InvalidInput, LeaseLost, NotFound, RekindleError
from rekindle.status import error_from_rpc
from scheduler_fakes import FakeInference, FakeTrainer
from scheduler_process import Client, SchedulerProcess, states

OWN_REVIEWS = records_pb2.ReviewPolicy(required=True, allow_own=True)
ACCEPT, REJECT = annotation_pb2.REVIEW_VERDICT_ACCEPT, annotation_pb2.REVIEW_VERDICT_REJECT


@pytest.fixture(scope="module")
def services() -> Iterator[tuple[FakeInference, FakeTrainer]]:
    inference, trainer = FakeInference(), FakeTrainer()
    inference.start()
    trainer.start()
    yield inference, trainer
    inference.stop()
    trainer.stop()


@pytest.fixture(scope="module")
def scheduler(
    tmp_path_factory: pytest.TempPathFactory, services: tuple[FakeInference, FakeTrainer]
) -> Iterator[SchedulerProcess]:
    process = SchedulerProcess(tmp_path_factory.mktemp("scheduler"), *services)
    process.start()
    yield process
    process.stop(signal.SIGKILL)


@pytest.fixture
def client(scheduler: SchedulerProcess, services: tuple[FakeInference, FakeTrainer]) -> Client:
    return Client(scheduler, services[0])


@pytest.fixture(scope="module")
def idle(scheduler: SchedulerProcess, services: tuple[FakeInference, FakeTrainer]) -> Client:
    """With a project in which nobody does anything."""
    client = Client(scheduler, services[0])
    client.create_project(sizes=[1], cases=1)
    client.call("StartProject")
    return client


def refused(client: Client, method: str, **fields: Any) -> RekindleError:
    """What the call is refused with; the service lives on."""
    with pytest.raises(grpc.RpcError) as raised:
        client.call(method, **fields)
    client.call("GetProject")
    return error_from_rpc(raised.value)


def start(client: Client, cases: int = 3, **policy: Any) -> records_pb2.Lease:
    """A project whose only round hands out so many cases, and the first of them."""
    client.create_project(sizes=[cases], cases=cases, **policy)
    client.call("StartProject")
    return client.lease()


def draft(client: Client, lease: records_pb2.Lease, **changes: Any) -> dict[str, Any]:
    """The fields of a sound SaveDraft."""
    fields = client.submission(lease, organ_states=states(liver="EDITED"), time_segments=[])
    return {**fields, **changes}


def test_a_round_waits_for_its_reviews(client: Client) -> None:
    """Nothing is trained on before it is accepted; a rejected label's case comes again; then the round goes on."""
    lease = start(client, cases=2, review=OWN_REVIEWS)
    first = client.call("Submit", **client.submission(lease)).submission
    second = client.call("Submit", **client.submission(client.lease())).submission
    assert [records_pb2.REVIEW_STATE_PENDING] * 2 == [first.review_state, second.review_state]
    assert (2, 0) == ((counts := client.project().counts).in_review, counts.labelled)
    assert isinstance(refused(client, "TrainNow"), IllegalTransition)
    none = client.call("LeaseNextCase").none
    assert "wait for a reviewer" in none.message
    listed = client.call("ListSubmissions", review_states=[records_pb2.REVIEW_STATE_PENDING]).submissions
    assert [first.submission_id, second.submission_id] == [each.submission_id for each in listed]
    client.call("ReviewSubmission", submission_id=first.submission_id, verdict=ACCEPT)
    client.call("ReviewSubmission", submission_id=second.submission_id, verdict=REJECT, comment="spleen")
    again = client.lease()
    assert second.case_id == again.case.case_id
    third = client.call("Submit", **client.submission(again)).submission
    assert records_pb2.ROUND_STATE_ANNOTATING == client.call("GetRound", number=1).round.state
    client.call("ReviewSubmission", submission_id=third.submission_id, verdict=ACCEPT)
    client.wait_for("COMPLETE")
    assert 2 == client.call("GetRound", number=1).round.labelled_cases


def test_train_now_takes_what_is_accepted(client: Client, services: tuple[FakeInference, FakeTrainer]) -> None:
    """One label is accepted, one waits: the run sees the accepted one alone, the other counts in the next round."""
    lease = start(client, cases=2, review=OWN_REVIEWS)
    first = client.call("Submit", **client.submission(lease)).submission
    second = client.call("Submit", **client.submission(client.lease())).submission
    client.call("ReviewSubmission", submission_id=first.submission_id, verdict=ACCEPT)
    client.call("TrainNow")
    _until_cut(client, 1)
    accepted = client.call("ReviewSubmission", submission_id=second.submission_id, verdict=ACCEPT).submission
    assert 2 == accepted.round
    client.wait_for("COMPLETE")
    rounds = client.call("ListRounds").rounds
    trained = [
        {example.case_id for example in services[1].runs[each.run_id].spec.training if example.source == 2}
        for each in rounds[1:]
    ]
    assert [{first.case_id}, {first.case_id, second.case_id}] == trained


def test_a_correction_is_trained_on_and_older_snapshots_stay(
    client: Client, services: tuple[FakeInference, FakeTrainer]
) -> None:
    """Round 1 is closed and the project complete: the corrected label opens a round, which trains on it."""
    lease = start(client, cases=1)
    first = client.call("Submit", **client.submission(lease)).submission
    client.wait_for("COMPLETE")
    before = client.call("GetRound", number=1).round
    assert "IN_SNAPSHOT" == refused(client, "WithdrawSubmission", submission_id=first.submission_id).reason
    again = client.call("LeaseCase", case_id=first.case_id, revise=True).lease
    assert (True, records_pb2.CASE_STATE_LABELLED) == (again.revises, again.case.state)
    receipt = services[0].add_mask(
        client.project_id, again.case.volume_id, coarse_id=first.mask_volume_id, voxels={"liver": 900, "spleen": 210}
    )
    fields = client.submission(again, receipt_id=receipt.receipt_id)
    second = client.call("Submit", **fields).submission
    assert (2, first.submission_id, first.submission_id) == (
        second.revision,
        second.supersedes_submission_id,
        second.started_from_submission_id,
    )
    _until_cut(client, 2)
    client.wait_for("COMPLETE")
    assert before == client.call("GetRound", number=1).round
    run = services[1].runs[client.call("GetRound", number=2).round.run_id]
    assert [receipt.mask_digest] == [each.mask_digest for each in run.spec.training if each.source == 2]
    assert 1 == client.project().counts.labelled


def test_a_withdrawn_label_is_labelled_again(client: Client) -> None:
    """In the same round; sent twice under one request id it is withdrawn once."""
    lease = start(client, cases=2)
    first = client.call("Submit", **client.submission(lease)).submission
    answers = [
        client.call("WithdrawSubmission", request_id="withdraw-1", submission_id=first.submission_id, reason="oops")
        for _ in range(2)
    ]
    assert answers[0] == answers[1]
    assert records_pb2.CASE_STATE_READY == answers[0].case.state
    assert "SUBMISSION_WITHDRAWN" == refused(client, "WithdrawSubmission", submission_id=first.submission_id).reason
    assert 2 == client.label_all()
    client.wait_for("COMPLETE")


def test_a_draft_survives_a_restart_of_the_service(client: Client, scheduler: SchedulerProcess) -> None:
    """Killed after the answer: the draft, its time and the lease are there, and the tool goes on."""
    lease = start(client, cases=2)
    time.sleep(0.05)
    segment = {"kind": 1, "source": 1, "start_time": lease.start_time, "active_seconds": 0.02}
    saved = client.call("SaveDraft", request_id="save-1", **draft(client, lease, time_segments=[segment]))
    scheduler.stop(signal.SIGKILL)
    scheduler.start()
    assert saved.draft == client.call("GetDraft", case_id=lease.case.case_id).draft
    taken = client.call("TakeUpLease", lease_id=lease.lease_id, tool="viewer")
    assert (saved.draft, 0.02, lease.start_time) == (
        taken.draft,
        taken.time_segments[0].active_seconds,
        taken.lease.start_time,
    )
    client.call("Submit", **client.submission(taken.lease, time_segments=[segment]))
    entries = [each for each in client.call("ListLedger").entries if each.case_id == lease.case.case_id]
    assert [0.02] == [each.segment.active_seconds for each in entries]


def test_a_draft_under_a_lost_lease_is_refused_and_kept(client: Client) -> None:
    """ABORTED as LeaseLost, and the error names the draft; a retry of it keeps no second one."""
    lease = start(client, cases=2)
    client.call("TakeUpLease", lease_id=lease.lease_id)
    fields = draft(client, lease)
    names = []
    for _ in range(2):
        error = refused(client, "SaveDraft", request_id="late-1", **fields)
        assert isinstance(error, LeaseLost)
        names.append(error.metadata["draft_id"])
    (kept,) = client.call("ListDrafts").drafts
    assert ([kept.draft_id] * 2, True) == (names, kept.late)
    client.call("DiscardDraft", draft_id=kept.draft_id)
    assert isinstance(refused(client, "GetDraft", draft_id=kept.draft_id), NotFound)


def test_a_session_is_leased_in_one_step(client: Client) -> None:
    """The first cases that fit; listed, and given back with what was not handed in."""
    lease = start(client, cases=3)
    client.call("ReleaseLease", lease_id=lease.lease_id, fencing_token=lease.fencing_token)
    session = client.call("StartSession", request_id="session-1", minutes=1440, detached=True).session
    assert session == client.call("StartSession", request_id="session-1", minutes=1440, detached=True).session
    assert 3 == len(session.leases)
    week = session.expire_time.ToSeconds() - session.create_time.ToSeconds()
    assert 7 * 86_400 == week
    client.call("Submit", **client.submission(session.leases[0]))
    ended = client.call("EndSession", session_id=session.session_id).session
    assert [records_pb2.LEASE_STATE_SUBMITTED, *[records_pb2.LEASE_STATE_RELEASED] * 2] == [
        each.state for each in ended.leases
    ]
    assert [] == list(client.call("ListMySessions").sessions)
    assert [ended] == list(client.call("ListMySessions", include_ended=True).sessions)


@pytest.mark.parametrize(
    ("method", "fields", "error", "field"),
    [
        ("StartSession", {"minutes": -5.0}, InvalidInput, "minutes"),
        ("StartSession", {"minutes": 1441.0}, InvalidInput, "minutes"),
        ("StartSession", {"minutes": 5.0, "duration": Duration(seconds=1)}, InvalidInput, "duration"),
        ("ReviewSubmission", {"submission_id": "s"}, InvalidInput, "verdict"),
        ("ReviewSubmission", {"submission_id": "../../etc", "verdict": ACCEPT}, NotFound, ""),
        ("WithdrawSubmission", {"submission_id": ""}, NotFound, ""),
        ("TakeUpLease", {"lease_id": "nobody's"}, NotFound, ""),
        ("GetDraft", {}, InvalidInput, "case_id"),
        ("GetDraft", {"case_id": "nobody's"}, NotFound, ""),
        ("DiscardDraft", {"draft_id": "nobody's"}, NotFound, ""),
        ("GetSession", {"session_id": "nobody's"}, NotFound, ""),
        ("EndSession", {"session_id": "nobody's"}, NotFound, ""),
        ("ListDrafts", {"page_token": "nonsense"}, InvalidInput, "page_token"),
        ("ListMySessions", {"page_size": -1}, InvalidInput, "page_size"),
        ("ListSubmissions", {"review_states": [77]}, InvalidInput, "review_states[0]"),
        ("EndSession", {"session_id": "s", "request_id": ""}, InvalidInput, "request_id"),
    ],
)
def test_wrong_input_is_named(
    idle: Client, method: str, fields: dict[str, Any], error: type[RekindleError], field: str
) -> None:
    """The class says what is wrong and the violation where; nothing is left behind."""
    found = refused(idle, method, **fields)
    assert isinstance(found, error)
    assert field in ("", *(violation.field for violation in found.violations))
    assert [] == list(idle.call("ListMySessions", include_ended=True).sessions)
    assert [] == list(idle.call("ListDrafts").drafts)


def test_unknown_organs_of_a_draft_are_named(client: Client) -> None:
    """By their place; the draft is not kept."""
    lease = start(client, cases=1)
    error = refused(client, "SaveDraft", **draft(client, lease, organ_states=states(kidney="EDITED")))
    assert ["organ_states[0]"] == [violation.field for violation in error.violations]
    assert [] == list(client.call("ListDrafts").drafts)


def test_a_patient_without_a_spleen_is_labelled(client: Client) -> None:
    """With the status absent; an empty organ without such a status is refused and names it."""
    lease = start(client, cases=1)
    receipt = client.inference.add_mask(client.project_id, lease.case.volume_id, voxels={"liver": 900, "spleen": 0})
    fields = client.submission(lease, receipt_id=receipt.receipt_id)
    error = refused(client, "Submit", **fields)
    assert ["organ_states[1]"] == [violation.field for violation in error.violations]
    stored = client.call("Submit", **{**fields, "organ_states": states(liver="EDITED", spleen="ABSENT")}).submission
    assert records_pb2.REVIEW_STATE_ACCEPTED == stored.review_state


def _until_cut(client: Client, number: int) -> None:
    deadline = time.monotonic() + 30
    while not client.call("GetRound", number=number).round.snapshot_digest:
        assert time.monotonic() < deadline, "the round was not cut"
        time.sleep(0.02)
