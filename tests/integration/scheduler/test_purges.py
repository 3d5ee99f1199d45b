"""Erasing a patient: what the scheduler does at once, and how it carries it through faults."""

from __future__ import annotations

import signal
import sqlite3
from typing import Any

import pytest
from refusals import refused
from rekindle.api.scheduler.v1 import purges_pb2, records_pb2, scheduler_pb2
from rekindle.api.trainer.v1 import trainer_pb2
from rekindle.errors import IllegalTransition, InvalidInput, LeaseLost, NotFound
from scheduler_fakes import FakeInference, FakeTrainer
from scheduler_process import Client, SchedulerProcess, eventually

PATIENT = "group-CANARY-4711"


def begin(client: Client, *, sizes: list[int], others: int = 2) -> list[records_pb2.Case]:
    """A running project with a patient of two cases and some others; the patient's cases."""
    client.create_project(sizes=sizes, cases=others, close=False)
    volumes = [client.inference.add_image(client.project_id, f"patient {number}") for number in range(2)]
    requests = [
        scheduler_pb2.RegisterCasesRequest(project_id=client.project_id, volume_id=volume, group_key=PATIENT)
        for volume in volumes
    ]
    registered = list(client.scheduler.stub.RegisterCases(iter(requests), timeout=10))
    client.call("CloseRegistration")
    client.call("StartProject")
    client.wait_for("ACTIVE")
    return [answer.case for answer in registered]


def purge(client: Client, **fields: Any) -> purges_pb2.Purge:
    return client.call("PurgeGroup", **{"group_key": PATIENT, "reason": "asked for", **fields}).purge


def ended(client: Client, begun: purges_pb2.Purge) -> purges_pb2.Purge:
    """The purge once it is done."""

    def now() -> purges_pb2.Purge:
        return client.call("GetPurge", purge_id=begun.purge_id).purge

    eventually(lambda: now().state == purges_pb2.PURGE_STATE_DONE, "the purge does not end")
    return now()


def lease(client: Client, case: records_pb2.Case) -> records_pb2.Lease:
    return client.call("LeaseCase", case_id=case.case_id).lease


def database_bytes(scheduler: SchedulerProcess) -> bytes:
    return b"".join(path.read_bytes() for path in scheduler.folder.glob("scheduler.sqlite3*"))


def test_nothing_of_the_patient_is_left_with_the_scheduler(client: Client, scheduler: SchedulerProcess) -> None:
    """Digests of images and labels and the group's key are found in no page of the database; the ids stay."""
    cases = begin(client, sizes=[4])
    held = lease(client, cases[0])
    client.call("Submit", **client.submission(held))
    digests = [client.call("ListSubmissions").submissions[0].mask_digest]
    digests += [client.inference.volumes[client.project_id, case.volume_id].canonical_digest for case in cases]
    before = database_bytes(scheduler)
    assert all(text.encode() in before for text in [*digests, PATIENT])

    done = ended(client, purge(client))

    after = database_bytes(scheduler)
    assert [text for text in [*digests, PATIENT] if text.encode() in after] == []
    assert (list(done.case_ids), done.submissions) == ([case.case_id for case in cases], 1)
    listed = {case.case_id: case for case in client.call("ListCases").cases}
    assert {listed[case.case_id].state for case in cases} == {records_pb2.CASE_STATE_PURGED}
    minutes = client.call("ListLedger").entries
    assert [entry.case_id for entry in minutes] == [cases[0].case_id]


def test_a_run_that_trains_on_the_patient_begins_again_without(client: Client, trainer: FakeTrainer) -> None:
    """The run under way is stopped, another one trains on the rest, and its model is not marked."""
    cases = begin(client, sizes=[4])
    trainer.duration = 10**6
    assert client.label_some(4) == 4
    eventually(lambda: len(trainer.runs) == 2, "round 1 does not train")
    first = list(trainer.runs)[1]

    done = ended(client, purge(client))
    eventually(lambda: len(trainer.runs) == 3, "round 1 does not train again")
    trainer.duration = 0
    client.wait_for("COMPLETE")

    second = trainer.runs[list(trainer.runs)[2]]
    assert trainer.runs[first].state == trainer_pb2.RUN_STATE_CANCELLED
    trained = {example.case_id for example in second.spec.training}
    assert trained.isdisjoint({case.case_id for case in cases})
    assert len(second.spec.training) == 2 + 2  # two seeds and the two others
    assert not done.marked_model_version_ids


def test_a_round_whose_labels_are_all_erased_closes_without_training(client: Client, trainer: FakeTrainer) -> None:
    """Nothing is left to learn from: the model that serves stays, and the campaign goes on."""
    cases = begin(client, sizes=[2])
    trainer.duration = 10**6
    for case in cases:
        client.call("Submit", **client.submission(lease(client, case)))
    client.call("TrainNow")
    eventually(lambda: len(trainer.runs) == 2, "round 1 does not train")

    ended(client, purge(client))
    trainer.duration = 0
    client.label_all()
    client.wait_for("COMPLETE")

    decision = client.call("ListRounds").rounds[1].decision
    assert not decision.promoted
    assert "erased" in decision.reason


def test_whoever_holds_a_case_of_the_patient_loses_it(client: Client) -> None:
    """Renewing, submitting and leasing are refused; other cases are leased as before."""
    cases = begin(client, sizes=[4])
    held = lease(client, cases[0])
    sound = client.submission(held)

    begun = purge(client)

    token = {"lease_id": held.lease_id, "fencing_token": held.fencing_token}
    assert isinstance(refused(lambda: client.call("RenewLease", **token)), LeaseLost | NotFound)
    assert isinstance(refused(lambda: client.call("Submit", **sound)), NotFound | LeaseLost)
    assert isinstance(refused(lambda: lease(client, cases[1])), NotFound)
    ended(client, begun)
    assert not client.call("ListSubmissions").submissions
    assert client.label_all() == 2


def test_a_session_with_an_erased_case_can_be_ended(client: Client) -> None:
    """What is left of it is given back, and the others can have it."""
    begin(client, sizes=[4])
    first = client.lease()  # once there is one to take, all are
    client.call("ReleaseLease", lease_id=first.lease_id, fencing_token=first.fencing_token)
    session = client.call("StartSession", minutes=1440.0).session
    assert len(session.leases) == 4

    ended(client, purge(client))
    over = client.call("EndSession", session_id=session.session_id).session

    assert over.HasField("end_time")
    assert {lease.state for lease in over.leases} == {records_pb2.LEASE_STATE_RELEASED}
    assert client.label_all() == 2


@pytest.mark.parametrize("method", ["PurgeVolumes", "PurgeExamples"])
def test_a_service_that_is_away_is_waited_for(
    client: Client, inference: FakeInference, trainer: FakeTrainer, scheduler: SchedulerProcess, method: str
) -> None:
    """It is said what is waited for; a scheduler killed meanwhile goes on where it was, and nothing is erased twice."""
    cases = begin(client, sizes=[4])
    (inference if method == "PurgeVolumes" else trainer).away[method] = 10**6
    begun = purge(client)
    name = "inference" if method == "PurgeVolumes" else "trainer"
    eventually(
        lambda: name in client.call("GetPurge", purge_id=begun.purge_id).purge.waiting_for, "nobody says who is away"
    )
    scheduler.stop(signal.SIGKILL)
    (inference if method == "PurgeVolumes" else trainer).away[method] = 0
    scheduler.start()

    done = ended(client, begun)

    assert done.volumes >= len(cases)
    assert not done.waiting_for
    assert [each.purge_id for each in client.call("ListPurges").purges] == [begun.purge_id]


def test_a_repeated_request_begins_one_purge(client: Client) -> None:
    """The same request id answers the same purge; a new one finds nobody in the group."""
    begin(client, sizes=[4])
    first = purge(client, request_id="once")

    assert purge(client, request_id="once").purge_id == first.purge_id
    ended(client, first)
    assert refused(lambda: purge(client)).reason == "GROUP_NOT_FOUND"
    assert len(client.call("ListPurges").purges) == 1


def test_a_case_names_its_patient(client: Client) -> None:
    """Its whole group is erased; a case without a group alone."""
    cases = begin(client, sizes=[4])
    alone = next(case for case in client.call("ListCases").cases if not case.group_key)

    assert list(purge(client, group_key="", case_id=alone.case_id).case_ids) == [alone.case_id]
    both = purge(client, group_key="", case_id=cases[1].case_id)
    assert sorted(both.case_ids) == sorted(case.case_id for case in cases)
    assert refused(lambda: purge(client, group_key="", case_id=cases[0].case_id)).reason == "PURGED"


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"group_key": ""}, "group_key"),
        ({"case_id": "c"}, "group_key"),
        ({"reason": " "}, "reason"),
        ({"reason": "x" * 501}, "reason"),
    ],
)
def test_wrong_requests_name_the_field(client: Client, fields: dict[str, str], field: str) -> None:
    """Nothing is begun."""
    client.create_project(sizes=[2], cases=1)
    error = refused(lambda: purge(client, **fields))
    assert isinstance(error, InvalidInput)
    assert [violation.field for violation in error.violations] == [field]


def test_an_image_of_the_seed_set_is_not_erased(client: Client) -> None:
    """A seed set never changes, so the purge is refused and says so."""
    client.create_project(sizes=[2], cases=0, close=False)
    seed = client.call("ListSeedCases").seed_cases[0]
    request = scheduler_pb2.RegisterCasesRequest(
        project_id=client.project_id, volume_id=seed.image_volume_id, group_key=PATIENT
    )
    list(client.scheduler.stub.RegisterCases(iter([request]), timeout=10))

    error = refused(lambda: purge(client))

    assert (type(error), error.reason) == (IllegalTransition, "SEED_CASE")


def test_registering_an_erased_volume_again_answers_the_tombstone(client: Client, scheduler: SchedulerProcess) -> None:
    """It does not come back by accident."""
    cases = begin(client, sizes=[4])
    ended(client, purge(client))

    again = client.register_volumes([cases[0].volume_id])[0]

    assert (again.created, again.case.state) == (False, records_pb2.CASE_STATE_PURGED)
    with sqlite3.connect(scheduler.folder / "scheduler.sqlite3") as database:
        assert database.execute("SELECT count(*) FROM cases").fetchone() == (4,)
    database.close()
