"""What a launcher says reaches the run's record, and what nobody knows of a launch is found out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from rekindle.errors import DependencyUnavailable, InvalidInput
from rekindle.vocabulary import RunState
from rekindle_trainer.__main__ import _facts, training_command  # pyright: ignore[reportPrivateUsage]
from rekindle_trainer.adapters import kubernetes as adapter
from rekindle_trainer.adapters import launchers
from rekindle_trainer.adapters.kubernetes_job import job_manifest
from rekindle_trainer.adapters.launchers import make_launcher, stops_children
from rekindle_trainer.domain.retry import ProcessEnd, RetryPolicy, Verdict
from rekindle_trainer.domain.runs import AttemptState
from rekindle_trainer.ports import ProcessStatus
from rekindle_trainer.process.__main__ import ProcessSettings
from rekindle_trainer.settings import TrainerSettings
from trainer_runs import MakeSpec

IMAGE = "rekindle-trainer@sha256:" + "0" * 64


def _says(service: Any, **status: Any) -> Any:
    service.launcher.said["run-1/1"] = ProcessStatus(**status)
    service.pass_()
    return service.get("run-1")


@pytest.mark.parametrize(("launcher", "capability"), [("process", "subprocess"), ("kubernetes", "kubernetes")])
def test_a_trainer_says_how_it_trains(launcher: Any, capability: str) -> None:
    """`GetServerInfo` names the launcher that it uses, and no other."""
    told = _facts(TrainerSettings(launcher=launcher)).capabilities
    assert {capability} == told & {"subprocess", "kubernetes"}


def test_why_a_process_has_not_begun_is_told_while_it_waits(service: Any, spec: MakeSpec) -> None:
    """The run's reason follows the launcher's words, and is empty again once there is nothing to say."""
    service.start(spec())
    service.pass_()
    for words in ("waits for room in Kueue's queue research", "its pod is being started", ""):
        run = _says(service, is_running=True, reason=words)
        assert (RunState.RUNNING, words) == (run.state, run.reason)
    version = run.version
    assert version == _says(service, is_running=True).version


def test_a_preempted_process_spends_no_retry(service: Any, spec: MakeSpec) -> None:
    """Taken off its machine however often, the run goes on, with the reason in its record."""
    service.supervisor.policy = RetryPolicy(max_retries=0)
    service.start(spec())
    for number in range(1, 4):
        service.pass_()
        service.launcher.said[f"run-1/{number}"] = ProcessStatus(
            is_running=False, exit_code=137, was_preempted=True, reason="its pod was taken off its node (Evicted)"
        )
        service.supervisor.advance("run-1")
        run = service.get("run-1")
        assert (RunState.PREEMPTED, 0, number) == (run.state, run.failures, run.attempts)
        assert "its pod was taken off its node (Evicted): goes on from its last checkpoint" == run.reason


def test_what_would_end_in_the_same_way_is_not_tried_again(service: Any, spec: MakeSpec) -> None:
    """An image that cannot be pulled fails the run at once, in the launcher's words."""
    service.start(spec())
    service.pass_()
    run = _says(service, is_running=False, is_final=True, reason="its image cannot be pulled; given up after 300 s")
    assert (RunState.FAILED, 1) == (run.state, run.attempts)
    assert "its image cannot be pulled; given up after 300 s" == run.reason


def test_a_death_is_told_in_the_launchers_words(service: Any, spec: MakeSpec) -> None:
    """Out of memory counts as a retry and names the limit."""
    service.start(spec())
    service.pass_()
    service.supervisor.max_concurrent_runs = 0
    run = _says(service, is_running=False, exit_code=137, reason="killed: out of memory (limit 16Gi)")
    assert (RunState.QUEUED, 1) == (run.state, run.failures)
    assert run.reason.startswith("killed: out of memory (limit 16Gi): starts again from its last checkpoint")


def test_a_result_counts_whatever_the_launcher_says() -> None:
    """A process that had stored its result before its pod was taken has succeeded; a spoilt spec stays final."""
    decide = RetryPolicy().decide
    result: Any = object()
    assert Verdict.SUCCEED is decide(ProcessEnd(result=result, was_preempted=True, words="evicted"), 0).verdict
    assert Verdict.FAIL is decide(ProcessEnd(exit_code=2, was_preempted=True, words="evicted"), 0).verdict


def test_an_unanswered_launch_that_worked_is_taken_up(service: Any, spec: MakeSpec) -> None:
    """Where the server made the process and could not say so, the next pass follows it; nothing is started twice."""
    service.launcher.trouble, service.launcher.starts_despite_trouble = DependencyUnavailable("no answer"), True
    service.start(spec())
    service.pass_()
    service.launcher.trouble = None
    service.pass_()
    service.succeed(spec(), 1)
    service.pass_()
    run = service.get("run-1")
    assert (RunState.SUCCEEDED, 1, 0) == (run.state, run.attempts, run.failures)
    assert [("run-1", 1)] == service.launcher.launched


def test_an_unanswered_launch_that_did_not_work_is_tried_again(service: Any, spec: MakeSpec) -> None:
    """Where the server was away the claim is given up after its time, and no retry is spent."""
    service.launcher.trouble = DependencyUnavailable("no answer")
    service.supervisor.policy = RetryPolicy(max_retries=0)
    service.start(spec())
    service.pass_()
    assert RunState.RUNNING is service.get("run-1").state
    service.supervisor.claim_timeout_s = 0
    service.launcher.trouble = None
    service.pass_()
    with service.state.read() as tx:
        assert AttemptState.LOST is tx.find_attempt("run-1", 1).state
    run = service.get("run-1")
    assert (RunState.RUNNING, 2, 0) == (run.state, run.attempts, run.failures)
    assert [("run-1", 2)] == service.launcher.launched


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({}, "kubernetes_image"),
        ({"kubernetes_image": IMAGE, "kubernetes_config": "/nowhere"}, "kubernetes_config"),
        ({"kubernetes_image": IMAGE}, "inside the cluster"),
    ],
)
def test_settings_that_make_no_launcher_are_refused(changes: dict[str, Any], words: str) -> None:
    """Kubernetes without an image, without a readable kubeconfig, or outside of a cluster: said in words."""
    with pytest.raises(InvalidInput, match=words):
        make_launcher(TrainerSettings(launcher="kubernetes", **changes), ["python"])


def test_a_training_process_that_is_not_installed_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """A service without the training process says so at its start, not with the first run; another command is fine."""
    monkeypatch.setattr(launchers, "find_spec", lambda name: None if name == "torch" else object())
    with pytest.raises(InvalidInput, match=r"rekindle-trainer\[process\]"):
        make_launcher(TrainerSettings(), training_command(TrainerSettings()))
    assert 0 == make_launcher(TrainerSettings(), ["another", "command"]).gpus


def test_images_are_named_by_digest(monkeypatch: pytest.MonkeyPatch) -> None:
    """A tag could be another image at the next attempt."""
    monkeypatch.setenv("REKINDLE_TRAINER_KUBERNETES_IMAGE", "rekindle-trainer:0.1")
    with pytest.raises(InvalidInput, match=r"REKINDLE_TRAINER_KUBERNETES_IMAGE: .*digest"):
        TrainerSettings.load()


def test_structured_settings_are_json(monkeypatch: pytest.MonkeyPatch) -> None:
    """Node selector and tolerations come from the environment as JSON."""
    monkeypatch.setenv("REKINDLE_TRAINER_KUBERNETES_NODE_SELECTOR", '{"gpu": "a100"}')
    monkeypatch.setenv("REKINDLE_TRAINER_KUBERNETES_TOLERATIONS", '[{"operator": "Exists"}]')
    settings = TrainerSettings.load()
    assert {"gpu": "a100"} == settings.kubernetes_node_selector
    assert [{"operator": "Exists"}] == settings.kubernetes_tolerations


def test_a_job_knows_where_the_store_is_and_no_credential(monkeypatch: pytest.MonkeyPatch) -> None:
    """Address, region and time-outs of a bucket are in the Job, named as its process reads them; the secret is not."""
    made: list[Any] = []
    monkeypatch.setattr(adapter, "connect", lambda kubeconfig: None)
    monkeypatch.setattr(adapter, "KubernetesLauncher", lambda api, namespace, spec, **_: made.append(spec))
    settings = TrainerSettings(
        launcher="kubernetes",
        kubernetes_image=IMAGE,
        kubernetes_secret="store",
        kubernetes_ca_config_map="authorities",
        objects_url="s3://volumes/north",
        objects_endpoint="https://minio.example",
        objects_access_key="access-canary",
        objects_secret_key="secret-canary",
    )
    make_launcher(settings, training_command(settings))
    (container,) = job_manifest(made[0], "run-1", 1)["spec"]["template"]["spec"]["containers"]
    given = {item["name"]: item["value"] for item in container["env"]}
    process = ProcessSettings(
        **{
            name.removeprefix("REKINDLE_PROCESS_").lower(): value
            for name, value in given.items()
            if "_PROCESS_" in name
        }
    )
    assert ("https://minio.example", "us-east-1") == (process.objects_endpoint, process.objects_region)
    mounts = {mount["name"]: mount["mountPath"] for mount in container["volumeMounts"]}
    assert process.objects_ca_file == Path(mounts["authorities"]) / "ca.crt"
    assert "/opt/rekindle/bin/python" == container["command"][0]
    assert "s3://volumes/north" in container["command"]
    assert "canary" not in repr(container)


def test_jobs_outlive_the_service_and_children_do_not() -> None:
    """Unless somebody wants otherwise."""
    assert stops_children(TrainerSettings())
    assert not stops_children(TrainerSettings(launcher="kubernetes"))
    assert stops_children(TrainerSettings(launcher="kubernetes", stop_children_on_exit=True))
    assert not stops_children(TrainerSettings(stop_children_on_exit=False))
