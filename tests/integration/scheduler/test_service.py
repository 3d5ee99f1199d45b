"""The scheduler as a process, against inference and trainer services that keep their contracts."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import grpc
import pytest
from rekindle.api.inference.v1 import segmentations_pb2
from rekindle.api.scheduler.v1 import records_pb2
from rekindle.errors import DependencyUnavailable, LeaseLost
from rekindle.status import error_from_rpc
from scheduler_fakes import FakeInference, FakeTrainer
from scheduler_process import ORGANS, Client, SchedulerProcess, eventually


def test_a_campaign_runs_from_the_igniter_to_complete(client: Client) -> None:
    """Three rounds of two cases label all six, each round trains, promotes and predicts."""
    client.create_project(sizes=[2], cases=6)
    client.call("StartProject")
    assert 6 == client.label_all()
    project = client.wait_for("COMPLETE")
    rounds = client.call("ListRounds").rounds
    assert [0, 1, 2, 3] == [each.number for each in rounds]
    assert {records_pb2.ROUND_STATE_CLOSED} == {each.state for each in rounds}
    assert [0, 2, 2, 2] == [each.labelled_cases for each in rounds]
    assert [True] * 4 == [each.decision.promoted for each in rounds]
    assert rounds[3].serving_model_version_id == project.active_model_version_id
    assert 30.0 == pytest.approx(client.call("GetReport").ledger.minutes_total)


def test_held_out_cases_are_never_trained_on(client: Client, trainer: FakeTrainer) -> None:
    """Two cases are held out; no run has them among its training examples, the last one evaluates on both."""
    client.create_project(sizes=[2], cases=6, held_out=2)
    client.call("StartProject")
    assert 6 == client.label_all()
    project = client.wait_for("COMPLETE")
    assert (2, 2) == (project.counts.held_out, project.counts.held_out_labelled)
    cases = client.call("ListCases").cases
    held_out = {case.case_id for case in cases if case.held_out}
    trained = {example.case_id for run in trainer.runs.values() for example in run.spec.training}
    assert set() == held_out & trained
    assert {case.case_id for case in cases} - held_out <= trained


def test_a_refused_candidate_does_not_serve(client: Client, trainer: FakeTrainer) -> None:
    """A candidate below the margin on the held-out cases is registered and told of, and the igniter serves on."""
    trainer.candidate_dice = lambda spec: 0.5
    client.create_project(sizes=[3], cases=4, held_out=1)
    client.call("StartProject")
    client.label_all()
    project = client.wait_for("COMPLETE")
    first, second = client.call("ListRounds").rounds[:2]
    assert not second.decision.promoted
    assert records_pb2.PromotionDecision.BASIS_HELD_OUT == second.decision.basis
    assert first.serving_model_version_id == project.active_model_version_id
    assert second.candidate_model_version_id not in ("", project.active_model_version_id)


def test_killed_at_any_moment_it_comes_to_the_same_end(
    tmp_path: Path, inference: FakeInference, trainer: FakeTrainer
) -> None:
    """Five kills during a campaign change neither snapshots nor weights nor which cases were selected."""
    results: list[list[tuple[str, str, tuple[str, ...]]]] = []
    for kills in (0, 5):
        folder = tmp_path / str(kills)
        folder.mkdir()
        scheduler = SchedulerProcess(folder, inference, trainer)
        scheduler.start()
        client = Client(scheduler, inference)
        client.create_project(sizes=[2], cases=6, held_out=2)
        client.call("StartProject")
        for _ in range(kills):
            time.sleep(0.15)
            scheduler.stop(signal.SIGKILL)
            scheduler.start()
            if client.project().state == records_pb2.PROJECT_STATE_ACTIVE:
                client.call("Submit", **client.submission(client.lease()))
        client.label_all()
        client.wait_for("COMPLETE")
        results.append(_outcome(client))
        scheduler.stop()
    assert results[0] == results[1]


def _outcome(client: Client) -> list[tuple[str, str, tuple[str, ...]]]:
    volumes = {case.case_id: case.volume_id for case in client.call("ListCases").cases}
    digests = {
        volume_id: client.inference.volumes[client.project_id, volume_id].canonical_digest
        for volume_id in volumes.values()
    }
    return [
        (
            each.snapshot_digest,
            client.inference.models[each.candidate_model_version_id].package_digest
            if each.candidate_model_version_id
            else "",
            tuple(digests[volumes[case_id]] for case_id in each.selected_case_ids),
        )
        for each in client.call("ListRounds").rounds
    ]


def test_two_schedulers_on_one_database_advance_a_round_once(
    scheduler: SchedulerProcess, client: Client, inference: FakeInference, trainer: FakeTrainer
) -> None:
    """With two of them running, each round starts one run, is opened once and is closed once."""
    second = SchedulerProcess(scheduler.folder, inference, trainer, database_url=scheduler.database_url)
    second.start("second")
    try:
        client.create_project(sizes=[2], cases=6)
        client.call("StartProject")
        assert 6 == client.label_all()
        client.wait_for("COMPLETE")
    finally:
        assert 0 == second.stop()
    events = Counter((event.kind, event.round) for event in client.events())
    assert {("round-closed", number): 1 for number in range(4)} == {
        key: count for key, count in events.items() if key[0] == "round-closed"
    }
    assert {("training-started", number): 1 for number in range(4)} == {
        key: count for key, count in events.items() if key[0] == "training-started"
    }
    assert 4 == len(trainer.runs)


def test_it_waits_for_a_service_that_is_away_and_goes_on(client: Client, trainer: FakeTrainer) -> None:
    """Three failed starts of a run are told once, the project stays, and the run starts when the trainer is back."""
    trainer.away["StartRun"] = 3
    client.create_project(sizes=[6], cases=2)
    client.call("StartProject")
    client.lease()
    kinds = Counter(event.kind for event in client.events())
    assert (1, 1) == (kinds["waiting"], kinds["resumed"])
    assert 4 == trainer.calls["StartRun"]
    assert "" == client.call("GetRound", number=0).round.reason


def test_a_failed_run_stalls_the_project_until_it_is_retried(client: Client, trainer: FakeTrainer) -> None:
    """The reason is shown, and a retry trains under another run id."""
    trainer.failures.append("out of memory")
    client.create_project(sizes=[6], cases=1)
    client.call("StartProject")
    assert "out of memory" in client.wait_for("STALLED").state_reason
    failed_run = client.call("GetRound", number=0).round.run_id
    client.call("RetryProject")
    client.lease()
    assert failed_run != client.call("GetRound", number=0).round.run_id


def test_a_case_that_cannot_be_predicted_does_not_stop_the_others(client: Client, inference: FakeInference) -> None:
    """The other two are labelled; then the project stalls and names how many are left."""
    client.create_project(sizes=[6], cases=3)
    inference.unpredictable = {client.call("ListCases").cases[1].volume_id}
    client.call("StartProject")
    for _ in range(2):
        client.call("Submit", **client.submission(client.lease()))
    assert "1 case could not be predicted" in client.wait_for("STALLED").state_reason


def test_a_registered_model_takes_the_igniters_place(client: Client, trainer: FakeTrainer) -> None:
    """No igniter is trained; the given model's coarse labels are shown."""
    client.create_project(sizes=[2], cases=2)
    model = client.inference.register(client.project_id, ORGANS)
    client.call("StartProject", igniter_model_version_id=model)
    assert model == client.lease().case.coarse_label.model_version_id
    assert 0 == trainer.calls["StartRun"]


def test_watching_resumes_from_a_cursor_and_goes_live(client: Client) -> None:
    """A second watcher gets what is behind the cursor, and then what happens while it watches."""
    client.create_project(sizes=[2], cases=2)
    before = list(client.events())
    stream = client.watch(before[-2].cursor)
    assert before[-1] == next(stream).event
    client.call("StartProject")
    assert "project-started" == next(stream).event.kind
    stream.cancel()


def test_watching_ends_with_the_server(scheduler: SchedulerProcess, client: Client) -> None:
    """A watcher does not keep the service from ending in an orderly way."""
    client.create_project(sizes=[2], cases=1)
    stream = client.watch(0)
    next(stream)
    started = time.monotonic()
    assert 0 == scheduler.stop()
    assert time.monotonic() - started < 5


def test_a_watcher_is_told_that_the_service_stops(scheduler: SchedulerProcess, client: Client) -> None:
    """The stream of a service that stops ends with STOPPING, so that a watcher comes back; OK would be its end."""
    client.create_project(sizes=[2], cases=1)
    stream = client.watch(0)
    next(stream)
    assert scheduler.process is not None
    scheduler.process.send_signal(signal.SIGTERM)
    with pytest.raises(grpc.RpcError) as ended:
        list(stream)
    error = error_from_rpc(ended.value)
    assert (DependencyUnavailable, "STOPPING") == (type(error), error.reason)


def test_train_now_cuts_the_round_short(client: Client) -> None:
    """With one label of three the round trains, and the two others come in the next."""
    client.create_project(sizes=[3], cases=3)
    client.call("StartProject")
    lease = client.lease()
    with pytest.raises(grpc.RpcError) as refused:
        client.call("TrainNow")
    assert grpc.StatusCode.FAILED_PRECONDITION == refused.value.code()
    client.call("Submit", **client.submission(lease))
    client.call("TrainNow")
    # A label that comes before the snapshot is cut still counts for the round: wait until it is.
    deadline = time.monotonic() + 30
    while not client.call("GetRound", number=1).round.snapshot_digest:
        assert time.monotonic() < deadline, "the round was not cut"
        time.sleep(0.02)
    client.label_all()
    client.wait_for("COMPLETE")
    assert [0, 1, 2] == [each.labelled_cases for each in client.call("ListRounds").rounds]


def test_the_settings_are_told_by_help() -> None:
    """--help prints each variable with its meaning and ends with 0."""
    told = subprocess.run(
        [sys.executable, "-m", "rekindle_scheduler", "--help"], capture_output=True, text=True, check=True
    )
    assert "REKINDLE_SCHEDULER_RECONCILE_INTERVAL_S" in told.stdout


def test_neither_pixels_nor_tensors_are_imported() -> None:
    """The service's process never loads numpy, torch or the imaging library."""
    code = """
import sys
import rekindle_scheduler.__main__
print(sorted({"numpy", "torch", "SimpleITK", "rekindle_imaging"} & sys.modules.keys()))
"""
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "[]" == told.stdout.strip()


def test_a_mutation_sent_twice_happens_once(client: Client) -> None:
    """The same request id gives the first response again; another request under it is refused."""
    client.create_project(sizes=[2], cases=2)
    client.call("StartProject")
    client.lease()
    first, again = (client.call("LeaseNextCase", request_id="lease-1") for _ in range(2))
    assert first == again
    submission = client.submission(first.lease)
    sent, repeated = (client.call("Submit", request_id="submit-1", **submission) for _ in range(2))
    assert sent == repeated
    assert 1 == len(client.call("ListSubmissions").submissions)
    with pytest.raises(grpc.RpcError) as refused:
        client.call("Submit", request_id="submit-1", **{**submission, "fencing_token": 9})
    assert grpc.StatusCode.ALREADY_EXISTS == refused.value.code()


def test_a_mutation_without_a_request_id_is_refused(client: Client) -> None:
    """It could not be told from its retry."""
    client.create_project(sizes=[2], cases=1)
    with pytest.raises(grpc.RpcError) as refused:
        client.call("StartProject", request_id="")
    assert grpc.StatusCode.INVALID_ARGUMENT == refused.value.code()


def test_a_label_under_a_stale_token_is_refused_and_kept(client: Client) -> None:
    """ABORTED as LeaseLost, and the error names the draft; a retry of it does not make a second one."""
    client.create_project(sizes=[2], cases=2)
    client.call("StartProject")
    lease = client.lease()
    submission = client.submission(lease)
    client.call("ReleaseLease", lease_id=lease.lease_id, fencing_token=lease.fencing_token)
    drafts: list[str] = []
    for _ in range(2):
        with pytest.raises(grpc.RpcError) as refused:
            client.call("Submit", request_id="late", **submission)
        error = error_from_rpc(refused.value)
        assert isinstance(error, LeaseLost)
        drafts.append(error.metadata["draft_submission_id"])
    kept = client.call("ListSubmissions", case_id=lease.case.case_id).submissions
    assert drafts == [kept[0].submission_id] * 2
    assert [records_pb2.REVIEW_STATE_DRAFT] == [each.review_state for each in kept]


def test_cases_are_registered_in_the_order_sent(client: Client) -> None:
    """Known volumes answer their case; an unknown volume ends the stream with NOT_FOUND."""
    client.create_project(sizes=[2], cases=0, close=False)
    answers = client.register(["a", "b", "a", "c"])
    assert [True, True, False, True] == [answer.created for answer in answers]
    assert answers[0].case == answers[2].case
    with pytest.raises(grpc.RpcError) as refused:
        client.register_volumes(["no-such-volume"])
    assert grpc.StatusCode.NOT_FOUND == refused.value.code()


def test_lists_come_in_pages(client: Client) -> None:
    """Every case once, in order; a token of another list is refused."""
    client.create_project(sizes=[2], cases=5)
    pages: list[list[str]] = []
    token = ""
    while True:
        response = client.call("ListCases", page_size=2, page_token=token)
        pages.append([case.case_id for case in response.cases])
        token = response.next_page_token
        if not token:
            break
    assert [2, 2, 1] == [len(page) for page in pages]
    assert 5 == len({case_id for page in pages for case_id in page})
    token = client.call("ListCases", page_size=2).next_page_token
    with pytest.raises(grpc.RpcError) as refused:
        client.call("ListCases", page_size=2, page_token=token, ranked=True)
    assert grpc.StatusCode.INVALID_ARGUMENT == refused.value.code()


def test_a_version_that_annotators_find_worse_is_rolled_back(client: Client, trainer: FakeTrainer) -> None:
    """Promoted without held-out cases, its coarse labels need more correction than the igniter's: it gives way."""
    client.create_project(sizes=[3], cases=9)
    client.call("StartProject")
    client.label(3, dice=0.9)
    client.label(3, dice=0.6)
    client.label_all()
    client.wait_for("COMPLETE")
    assert ["model-rolled-back"] == [
        event.kind for event in client.events() if event.kind == "model-rolled-back" and event.round == 2
    ]
    assert 4 == len(trainer.runs)


def test_labels_are_delivered_as_results_once(
    client: Client, scheduler: SchedulerProcess, inference: FakeInference
) -> None:
    """Each label that counts is published once, though inference was away and the scheduler was killed meanwhile."""
    inference.away["PublishResult"] = 3
    client.create_project(sizes=[2], cases=4)
    client.call("StartProject")
    client.label(1, 0.8)
    scheduler.stop(signal.SIGKILL)
    scheduler.start()
    client.label_all()
    eventually(lambda: len(inference.published) >= 4, "results are missing")
    labels = client.call("ListSubmissions").submissions
    client.wait_for("COMPLETE")
    sent = list(inference.published.values())
    assert {each.mask_volume_id for each in labels} == {each.mask_volume_id for each in sent}
    assert {each.submission_id for each in labels} == {each.submission_id for each in sent}
    assert 4 == len(sent)
    assert {segmentations_pb2.RESULT_ORIGIN_CORRECTED} == {each.origin for each in sent}
    assert all(each.model_version_id in inference.models for each in sent)


def test_a_label_taken_back_is_taken_back_from_the_feed(client: Client, inference: FakeInference) -> None:
    """Submitted, then withdrawn: the result of it is published, then retracted."""
    client.create_project(sizes=[2], cases=2)
    client.call("StartProject")
    client.label(1, 0.8)
    eventually(lambda: len(inference.published) == 1, "the label was not published")
    (label,) = client.call("ListSubmissions").submissions
    client.call("WithdrawSubmission", submission_id=label.submission_id, reason="wrong patient")
    eventually(lambda: len(inference.published) == 2, "the label was not taken back")
    first, second = inference.published.values()
    assert (label.submission_id, False) == (first.submission_id, first.retracted)
    assert (label.submission_id, True) == (second.submission_id, second.retracted)
