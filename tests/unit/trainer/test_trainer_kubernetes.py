"""Jobs of Kubernetes on paper: the manifest, and what a Job and its pods say of an attempt."""

from __future__ import annotations

import re
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import kubernetes_validate
import pytest
from rekindle_trainer.adapters.kubernetes_job import JobSpec, job_manifest, job_name, service_manifest
from rekindle_trainer.adapters.kubernetes_status import Patience, read_status
from rekindle_trainer.ports import ProcessStatus

SPEC = JobSpec(
    image="registry.example/rekindle-trainer@sha256:" + "a" * 64,
    command=[
        "/opt/rekindle/bin/python",
        "-m",
        "rekindle_trainer.process",
        "--run",
        "{run_id}",
        "--attempt",
        "{attempt}",
    ],
    environment={"REKINDLE_TRAINER_THREADS": "3"},
    secret="store",
)
FULL = replace(
    SPEC,
    installation_id="north",
    gpus=4,
    nodes=2,
    ca_config_map="authorities",
    claim="objects",
    claim_path="/var/lib/rekindle/objects",
    service_account="training",
    pull_secret="pull",
    node_selector={"gpu": "a100"},
    tolerations=[{"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"}],
    runtime_class="nvidia",
    priority_class="low",
    queue="research",
)
NOW = datetime(2030, 1, 1, 12, tzinfo=UTC)


def _container(manifest: dict[str, Any]) -> dict[str, Any]:
    (container,) = manifest["spec"]["template"]["spec"]["containers"]
    return container


@pytest.mark.parametrize("spec", [SPEC, FULL, replace(SPEC, gpus=0, secret="")])
def test_manifests_follow_the_api(spec: JobSpec) -> None:
    """The strict schema of Kubernetes 1.34 knows every field, and refuses one that is misspelt."""
    manifest = job_manifest(spec, "run-1", 2)
    kubernetes_validate.validate(manifest, "1.34", strict=True)
    kubernetes_validate.validate(service_manifest(spec, "run-1", 2, "uid"), "1.34", strict=True)
    manifest["spec"]["backOffLimit"] = 1
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(manifest, "1.34", strict=True)


def test_a_bug_ends_the_job_and_a_disruption_does_not() -> None:
    """No retry by the Job itself; pods that were taken away are replaced, once they are gone, and count for nothing."""
    body = job_manifest(SPEC, "run-1", 1)["spec"]
    assert (0, "Failed") == (body["backoffLimit"], body["podReplacementPolicy"])
    ignore, fail = body["podFailurePolicy"]["rules"]
    assert ("Ignore", [{"type": "DisruptionTarget", "status": "True"}]) == (ignore["action"], ignore["onPodConditions"])
    assert ("FailJob", {"operator": "NotIn", "values": [0]}) == (fail["action"], fail["onExitCodes"])
    assert "Never" == body["template"]["spec"]["restartPolicy"]


def test_names_are_labels_and_tell_attempts_apart() -> None:
    """Names are DNS labels whatever the ids are, the same for the same attempt, and others for all else."""
    long = "Run/" + "x" * 200
    names = [
        job_name(installation, run, attempt)
        for installation in ("", "north")
        for run in ("run-1", "run-2", long)
        for attempt in (1, 2)
    ]
    assert len(set(names)) == len(names)
    assert all(re.fullmatch(r"[a-z]([a-z0-9-]{0,50}[a-z0-9])", name) for name in names)
    assert (
        job_name("north", long, 1) == job_manifest(replace(SPEC, installation_id="north"), long, 1)["metadata"]["name"]
    )


def test_pods_are_restricted_and_hold_no_secret() -> None:
    """The pod passes the restricted standard, mounts no token, and takes credentials from a Secret by name."""
    manifest = job_manifest(SPEC, "run-1", 1)
    pod, container = manifest["spec"]["template"]["spec"], _container(manifest)
    assert pod["automountServiceAccountToken"] is False
    assert (True, {"type": "RuntimeDefault"}) == (
        pod["securityContext"]["runAsNonRoot"],
        pod["securityContext"]["seccompProfile"],
    )
    assert {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    } == container["securityContext"]
    assert [{"secretRef": {"name": "store"}}] == container["envFrom"]
    assert not any("valueFrom" in item for item in container["env"])
    assert {"cpu", "memory", "nvidia.com/gpu"} == container["resources"]["limits"].keys()
    assert container["resources"]["limits"] == container["resources"]["requests"]


def test_keys_of_a_secret_can_be_named_by_variable() -> None:
    """A Secret whose keys are named otherwise serves too; what is not named stays out of the pod."""
    spec = replace(SPEC, secret_keys={"REKINDLE_PROCESS_OBJECTS_ACCESS_KEY": "access-key"})
    container = _container(job_manifest(spec, "run-1", 1))
    reference = {"secretKeyRef": {"name": "store", "key": "access-key"}}
    assert [reference] == [item["valueFrom"] for item in container["env"] if "valueFrom" in item]
    assert "envFrom" not in container


def test_placement_and_queue_are_as_set() -> None:
    """Selector, tolerations, classes, claim and Kueue's queue arrive; a queued Job is made suspended."""
    manifest = job_manifest(FULL, "run-1", 1)
    pod = manifest["spec"]["template"]["spec"]
    assert ({"gpu": "a100"}, "nvidia", "low", "training") == (
        pod["nodeSelector"],
        pod["runtimeClassName"],
        pod["priorityClassName"],
        pod["serviceAccountName"],
    )
    assert list(FULL.tolerations) == pod["tolerations"]
    assert "research" == manifest["metadata"]["labels"]["kueue.x-k8s.io/queue-name"]
    assert manifest["spec"]["suspend"] is True
    assert "suspend" not in job_manifest(SPEC, "run-1", 1)["spec"]
    assert {"tmp", "shm", "objects", "authorities"} == {volume["name"] for volume in pod["volumes"]}


def test_commands_of_one_and_of_many() -> None:
    """One GPU runs the process itself, several run torchrun on one pod, several nodes find the first by its name."""

    def command(spec: JobSpec) -> list[str]:
        return _container(job_manifest(spec, "run-1", 7))["command"]

    process = ["-m", "rekindle_trainer.process", "--run", "run-1", "--attempt", "7"]
    python = "/opt/rekindle/bin/python"
    assert [python, *process] == command(SPEC)
    torchrun = [python, "-m", "rekindle_trainer.process.torchrun"]
    each = ["--nproc-per-node=4", "--shutdown-timeout=20"]
    assert [*torchrun, "--standalone", *each, *process] == command(replace(SPEC, gpus=4))
    name = job_name("", "run-1", 7)
    assert [
        *torchrun, "--nnodes=2", "--node-rank=$(JOB_COMPLETION_INDEX)", f"--master-addr={name}-0.{name}",
        "--master-port=29400", *each, *process,
    ] == command(replace(SPEC, gpus=4, nodes=2))  # fmt: skip
    body = job_manifest(replace(SPEC, nodes=2), "run-1", 7)["spec"]
    assert (2, 2, "Indexed") == (body["parallelism"], body["completions"], body["completionMode"])
    assert name == body["template"]["spec"]["subdomain"]


def _job(*conditions: dict[str, Any], **spec: Any) -> dict[str, Any]:
    labels = {"kueue.x-k8s.io/queue-name": "research"} if spec.get("suspend") else {}
    return {"metadata": {"labels": labels}, "spec": spec, "status": {"conditions": list(conditions)}}


def _pod(
    phase: str, state: dict[str, Any] | None = None, *, age_s: float = 0, conditions: Any = (), **status: Any
) -> dict[str, Any]:
    created = (NOW - timedelta(seconds=age_s)).isoformat().replace("+00:00", "Z")
    containers = [{"name": "training", "resources": {"limits": {"memory": "16Gi"}}}]
    statuses = [] if state is None else [{"name": "training", "state": state}]
    return {
        "metadata": {"creationTimestamp": created},
        "spec": {"containers": containers},
        "status": {"phase": phase, "containerStatuses": statuses, "conditions": list(conditions), **status},
    }


def _terminated(code: int, reason: str = "Error") -> dict[str, Any]:
    return {"terminated": {"exitCode": code, "reason": reason}}


FAILED = {"type": "Failed", "status": "True", "reason": "BackoffLimitExceeded"}
LATE = {"type": "Failed", "status": "True", "reason": "DeadlineExceeded"}
COMPLETE = {"type": "Complete", "status": "True"}
DISRUPTED = {"type": "DisruptionTarget", "status": "True", "reason": "PreemptionByScheduler"}
NO_NODE = {
    "type": "PodScheduled", "status": "False", "message": "0/1 nodes are available",
    "lastTransitionTime": "2030-01-01T11:00:00Z",
}  # fmt: skip


def _goes_on(reason: str = "") -> ProcessStatus:
    return ProcessStatus(is_running=True, reason=reason)


def _ended(code: int | None = None, reason: str = "", **more: bool) -> ProcessStatus:
    return ProcessStatus(is_running=False, exit_code=code, reason=reason, **more)


@pytest.mark.parametrize(
    ("job", "pods", "expected"),
    [
        (_job(), [], _goes_on("waits for its pod to be made")),
        (_job(suspend=True), [], _goes_on("waits for room in Kueue's queue research")),
        (_job(), [_pod("Pending")], _goes_on("its pod is being started")),
        (_job(), [_pod("Running", {"running": {}})], _goes_on()),
        (_job(), [_pod("Pending", conditions=[NO_NODE])], _goes_on("no node takes its pod: 0/1 nodes are available")),
        (
            _job(),
            [_pod("Pending", {"waiting": {"reason": "CreateContainerConfigError"}}, age_s=299)],
            _goes_on("a Secret or ConfigMap that it needs is missing (CreateContainerConfigError)"),
        ),
        (
            _job(),
            [_pod("Pending", {"waiting": {"reason": "ErrImagePull"}}, age_s=300)],
            _ended(reason="its image cannot be pulled (ErrImagePull); given up after 300 s", is_final=True),
        ),
        (_job(COMPLETE), [_pod("Succeeded", _terminated(0, "Completed"))], _ended(0)),
        (_job(FAILED), [_pod("Failed", _terminated(1))], _ended(1)),
        (_job(FAILED), [_pod("Failed", _terminated(143))], _ended(143)),
        (
            _job(FAILED),
            [_pod("Failed", _terminated(137, "OOMKilled"))],
            _ended(137, "the training process was killed: out of memory (limit 16Gi)"),
        ),
        (
            _job(FAILED),
            [_pod("Failed", _terminated(143), conditions=[DISRUPTED])],
            _ended(143, "its pod was taken off its node (PreemptionByScheduler)", was_preempted=True),
        ),
        (
            _job(FAILED),
            [_pod("Failed", reason="Evicted")],
            _ended(reason="its pod was taken off its node (Evicted)", was_preempted=True),
        ),
        (
            _job(LATE, activeDeadlineSeconds=60),
            [_pod("Failed", _terminated(143))],
            _ended(reason="the Job was ended: it took longer than its limit of 60 s", is_final=True),
        ),
        (_job(FAILED), [], _ended(reason="the Job failed and its pods are gone: see the cluster's events")),
        # Of two nodes one broke down; the other was stopped because of that.
        (_job(FAILED), [_pod("Failed", _terminated(143)), _pod("Failed", _terminated(1), age_s=1)], _ended(1)),
        (_job(FAILED), [_pod("Failed", _terminated(76)), _pod("Failed", _terminated(75), age_s=1)], _ended(75)),
        # An earlier pod of the attempt was replaced.
        (_job(), [_pod("Failed", reason="Evicted", age_s=9), _pod("Running", {"running": {}})], _goes_on()),
    ],
)
def test_what_jobs_and_pods_say(job: dict[str, Any], pods: list[dict[str, Any]], expected: ProcessStatus) -> None:
    """Each state of a Job and its pods is told in words, and as what it means for the run."""
    assert expected == read_status(job, pods, NOW, Patience(unschedulable_s=0, broken_s=300))


@pytest.mark.parametrize(("allowed_s", "is_running"), [(0, True), (3601, True), (3600, False)])
def test_waiting_for_a_node_has_its_time(allowed_s: float, is_running: bool) -> None:
    """A pod that found no node for an hour waits on, or its run is given up, as the setting says; 0 waits for ever."""
    status = read_status(_job(), [_pod("Pending", conditions=[NO_NODE])], NOW, Patience(unschedulable_s=allowed_s))
    assert (is_running, not is_running) == (status.is_running, status.is_final)


def test_when_a_job_began_and_ended_is_its_pods_and_its_own_word() -> None:
    """Not when somebody looked: the newest pod's beginning, and the moment at which the Job had ended."""
    pods = [
        _pod("Failed", {"terminated": {"exitCode": 1, "startedAt": "2030-01-01T08:00:00Z"}}),
        _pod("Succeeded", {"terminated": {"exitCode": 0, "startedAt": "2030-01-01T09:00:00Z"}}),
    ]
    status = read_status(_job({**COMPLETE, "lastTransitionTime": "2030-01-01T10:00:00Z"}), pods, NOW, Patience())
    assert (NOW - timedelta(hours=3), NOW - timedelta(hours=2)) == (status.began_at, status.ended_at)
    running = read_status(
        _job(), [_pod("Running", {"running": {"startedAt": "2030-01-01T11:00:00Z"}})], NOW, Patience()
    )
    assert (NOW - timedelta(hours=1), None) == (running.began_at, running.ended_at)
