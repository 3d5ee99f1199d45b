"""The launcher of Kubernetes against a real API server with its controllers; pods run as processes here."""

from __future__ import annotations

import base64
import signal
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from kubelet import Kubelet, status_of
from kubernetes import client
from rekindle.api.trainer.v1 import trainer_pb2
from rekindle.errors import DependencyUnavailable
from rekindle_trainer.adapters.kubernetes import KubernetesLauncher, connect
from rekindle_trainer.adapters.kubernetes_job import JobSpec, job_name
from rekindle_trainer.adapters.kubernetes_status import Patience
from rekindle_trainer.ports import LaunchError
from suites.launchers import *  # noqa: F403 - the tests of the suite
from suites.launchers import Codes, launch, wait_for
from trainer_process import TrainerProcess, get, make_request, reach, train_a_little

IMAGE = "rekindle-trainer@sha256:" + "0" * 64


@pytest.fixture
def codes() -> Codes:
    """The pod of a Job that was deleted may be gone before anybody reads how it ended; signals come as 128 + n."""
    return lambda code, *, was_stopped: {code if code >= 0 else 128 - code} | ({None} if was_stopped else set())


def _pods(kubelet: Kubelet) -> list[dict[str, Any]]:
    return kubelet.pods()


def test_one_job_whatever_repeats(make_launcher: Any, api: client.ApiClient, namespace: str, tmp_path: Path) -> None:
    """Launched again, by the same service or another one, an attempt is the Job that is there already."""
    first, second = make_launcher(), make_launcher()
    handles = {first.launch("run", 1), first.launch("run", 1), second.launch("run", 1)}
    wait_for((tmp_path / "run-1.ready").exists)
    assert 1 == len(handles)
    assert 1 == len(client.BatchV1Api(api).list_namespaced_job(namespace).items)
    assert "run 1 3 None\n" == (tmp_path / "run-1.told").read_text()


def test_somebody_elses_job_of_that_name_is_left_alone(
    make_launcher: Any, api: client.ApiClient, namespace: str, spec: JobSpec
) -> None:
    """A Job that does not say it is this attempt's is an error in words, not taken over."""
    template = {"spec": {"restartPolicy": "Never", "containers": [{"name": "a", "image": "b", "command": ["true"]}]}}
    name = job_name("", "run", 1)
    batch = client.BatchV1Api(api)
    batch.create_namespaced_job(namespace, {"metadata": {"name": name}, "spec": {"template": template}})
    with pytest.raises(LaunchError, match="belongs to something else"):
        make_launcher().launch("run", 1)


def test_a_refused_job_says_why(make_launcher: Any) -> None:
    """What the API server finds wrong reaches the run's record."""
    with pytest.raises(LaunchError, match=r"answers 422: .*memory"):
        make_launcher(memory="-1Gi").launch("run", 1)


def test_when_a_job_began_and_ended_comes_from_the_cluster(make_launcher: Any) -> None:
    """However late somebody looks."""
    launcher = make_launcher()
    before = datetime.now(UTC).replace(microsecond=0)
    handle = launcher.launch("exit3", 1)
    wait_for(lambda: not launcher.poll(handle).is_running)
    after = datetime.now(UTC)
    time.sleep(2)
    status = make_launcher().poll(handle)
    assert 3 == status.exit_code
    assert before <= status.began_at <= status.ended_at <= after


def test_out_of_memory_is_told_with_the_limit(make_launcher: Any, kubelet: Kubelet) -> None:
    """A container that the kernel killed for its memory says so, and counts as a death."""
    kubelet.failure_reason = "OOMKilled"
    launcher = make_launcher(memory="3Gi")
    handle = launcher.launch("exit137", 1)
    wait_for(lambda: not launcher.poll(handle).is_running)
    status = launcher.poll(handle)
    assert (137, False, False) == (status.exit_code, status.was_preempted, status.is_final)
    assert "out of memory (limit 3Gi)" in status.reason


def test_an_evicted_pod_is_no_fault_of_the_run(make_launcher: Any, kubelet: Kubelet, tmp_path: Path) -> None:
    """A pod that its node put out is a preemption, told with the reason."""
    launcher = make_launcher()
    handle = launch(launcher, tmp_path, "run")
    kubelet.evict(_pods(kubelet)[0]["metadata"]["name"])
    wait_for(lambda: not launcher.poll(handle).is_running)
    status = launcher.poll(handle)
    assert status.was_preempted
    assert "Evicted" in status.reason


_PULL = {"waiting": {"reason": "ImagePullBackOff", "message": "Back-off"}}
_UNSCHEDULABLE = {
    "type": "PodScheduled",
    "status": "False",
    "reason": "Unschedulable",
    "message": "0/3 nodes are available: 3 Insufficient nvidia.com/gpu.",
    "lastTransitionTime": "2020-01-01T00:00:00Z",
}


@pytest.mark.parametrize(
    ("refusal", "words"),
    [
        (lambda pod: status_of(pod, "Pending", _PULL), "image cannot be pulled (ImagePullBackOff)"),
        (lambda pod: {"phase": "Pending", "conditions": [_UNSCHEDULABLE]}, "3 Insufficient nvidia.com/gpu"),
    ],
)
def test_waiting_says_what_for_and_ends(make_launcher: Any, kubelet: Kubelet, refusal: Any, words: str) -> None:
    """An image that cannot be pulled, and a pod that no node takes: told at once, given up after the time allowed."""
    kubelet.refuses = refusal
    patient = make_launcher(patience=Patience(unschedulable_s=0, broken_s=3600))
    impatient = make_launcher(patience=Patience(unschedulable_s=60, broken_s=0.01))
    handle = patient.launch("run", 1)
    wait_for(lambda: words in patient.poll(handle).reason)
    assert patient.poll(handle).is_running
    status = impatient.poll(handle)
    assert (False, True) == (status.is_running, status.is_final)
    assert words in status.reason
    wait_for(lambda: patient.find("run", 1) is None)


def test_the_deadline_ends_a_run_for_good(make_launcher: Any, tmp_path: Path) -> None:
    """The cluster ends a Job that takes longer than allowed, and no further attempt is made."""
    launcher = make_launcher(deadline_s=3, stop_grace_s=1)
    handle = launcher.launch("run", 1)
    wait_for(lambda: not launcher.poll(handle).is_running)
    status = launcher.poll(handle)
    assert status.is_final
    assert "limit of 3 s" in status.reason


def test_a_job_that_somebody_deleted_has_ended(
    make_launcher: Any, api: client.ApiClient, namespace: str, tmp_path: Path
) -> None:
    """Its run is not followed for ever; a new Job of that name is not taken for it."""
    launcher = make_launcher()
    handle = launch(launcher, tmp_path, "run")
    name = job_name("", "run", 1)
    client.BatchV1Api(api).delete_namespaced_job(name, namespace, propagation_policy="Background")
    wait_for(lambda: not launcher.poll(handle).is_running)
    assert "deleted" in launcher.poll(handle).reason
    again = launcher.launch("run", 1)
    assert handle != again
    assert not launcher.poll(handle).is_running
    launcher.terminate(handle)
    assert launcher.find("run", 1) == again


def test_an_api_server_that_is_away_is_unavailable(namespace: str, spec: JobSpec) -> None:
    """Every call says so with a typed error that names Kubernetes, within seconds."""
    configuration = client.Configuration(host="https://127.0.0.1:9")
    configuration.retries = False
    launcher = KubernetesLauncher(client.ApiClient(configuration), namespace, spec)
    handle = '{"job": "a", "uid": "b"}'
    for act in (
        lambda: launcher.launch("run", 1),
        lambda: launcher.find("run", 1),
        lambda: launcher.poll(handle),
        lambda: launcher.stop(handle),
    ):
        with pytest.raises(DependencyUnavailable, match="Kubernetes"):
            act()


def test_credentials_come_from_a_secret(
    make_launcher: Any, kubelet: Kubelet, api: client.ApiClient, namespace: str, tmp_path: Path
) -> None:
    """The Job names the Secret and holds none of its values; the process gets them, and nothing of this process."""
    data = {"REKINDLE_S3_SECRET_KEY": base64.b64encode(b"s3cret").decode()}
    client.CoreV1Api(api).create_namespaced_secret(namespace, {"metadata": {"name": "store"}, "data": data})
    launch(make_launcher(secret="store"), tmp_path, "run")
    jobs = client.BatchV1Api(api).list_namespaced_job(namespace, _preload_content=False).data.decode()
    assert "s3cret" not in jobs
    ((_, environment),) = kubelet.ran
    assert "s3cret" == environment["REKINDLE_S3_SECRET_KEY"]
    assert "PYTEST_CURRENT_TEST" not in environment


def test_pods_hold_no_token_and_no_privilege(
    make_launcher: Any, kubelet: Kubelet, api: client.ApiClient, namespace: str, tmp_path: Path
) -> None:
    """What the API server made of the pod mounts no service account's token and runs restricted."""
    launch(make_launcher(), tmp_path, "run")
    (pod,) = _pods(kubelet)
    container = pod["spec"]["containers"][0]
    assert {"tmp", "shm"} == {mount["name"] for mount in container["volumeMounts"]}
    assert pod["spec"]["securityContext"]["runAsNonRoot"]
    assert {"type": "RuntimeDefault"} == pod["spec"]["securityContext"]["seccompProfile"]
    assert ["ALL"] == container["securityContext"]["capabilities"]["drop"]
    assert container["securityContext"]["readOnlyRootFilesystem"]
    assert not container["securityContext"]["allowPrivilegeEscalation"]


def test_a_narrow_role_is_enough(
    api: client.ApiClient, kubeconfig: Path, namespace: str, spec: JobSpec, kubelet: Kubelet, tmp_path: Path
) -> None:
    """With the rights that its documentation names and no other, everything works, several nodes too."""
    rbac = client.RbacAuthorizationV1Api(api)
    rules = [
        {"apiGroups": ["batch"], "resources": ["jobs"], "verbs": ["create", "get", "list", "watch", "delete"]},
        {"apiGroups": [""], "resources": ["pods"], "verbs": ["list", "watch"]},
        {"apiGroups": [""], "resources": ["pods/log"], "verbs": ["get"]},
        {"apiGroups": [""], "resources": ["services"], "verbs": ["create"]},
    ]
    rbac.create_namespaced_role(namespace, {"metadata": {"name": "launcher"}, "rules": rules})
    rbac.create_namespaced_role_binding(
        namespace,
        {
            "metadata": {"name": "launcher"},
            "subjects": [{"kind": "User", "name": "trainer", "apiGroup": "rbac.authorization.k8s.io"}],
            "roleRef": {"kind": "Role", "name": "launcher", "apiGroup": "rbac.authorization.k8s.io"},
        },
    )
    narrow = connect(kubeconfig)
    narrow.set_default_header("Impersonate-User", "trainer")
    launcher = KubernetesLauncher(narrow, namespace, spec, log_folder=tmp_path / "logs")
    handle = launch(launcher, tmp_path, "run")
    assert launcher.find("run", 1) == handle
    assert launcher.poll(handle).is_running
    launcher.stop(handle)
    ended = launcher.launch("exit1", 1)
    wait_for(lambda: not launcher.poll(ended).is_running)
    KubernetesLauncher(narrow, namespace, replace(spec, nodes=2)).launch("exit0", 1)
    with pytest.raises(DependencyUnavailable, match="403"):
        KubernetesLauncher(narrow, "default", spec).find("run", 1)


def test_several_nodes_have_a_service_that_goes_with_their_job(
    make_launcher: Any, api: client.ApiClient, namespace: str, kubelet: Kubelet
) -> None:
    """The pods of a run on two nodes find each other by a headless service that belongs to the Job."""
    kubelet.refuses = lambda pod: {"phase": "Pending"}
    launcher = make_launcher(nodes=2, gpus=2)
    handle = launcher.launch("run", 1)
    wait_for(lambda: 2 == len(_pods(kubelet)))
    core = client.CoreV1Api(api)
    (service,) = core.list_namespaced_service(namespace).items
    assert ("None", {"job-name": job_name("", "run", 1)}) == (service.spec.cluster_ip, service.spec.selector)
    assert all(pod["metadata"]["labels"]["job-name"] == service.metadata.name for pod in _pods(kubelet))
    assert all(pod["spec"]["subdomain"] == service.metadata.name for pod in _pods(kubelet))
    launcher.stop(handle)
    wait_for(lambda: not core.list_namespaced_service(namespace).items)


@pytest.fixture
def trainer(tmp_path: Path, kubeconfig: Path, namespace: str) -> Iterator[TrainerProcess]:
    """The training service, whose processes are Jobs; not started yet."""
    settings = {
        "LAUNCHER": "kubernetes",
        "KUBERNETES_CONFIG": str(kubeconfig),
        "KUBERNETES_NAMESPACE": namespace,
        "KUBERNETES_IMAGE": IMAGE,
        "KUBERNETES_PYTHON": sys.executable,
        "KUBERNETES_GPUS": "0",
        "MAX_RETRIES": "0",
        "CLAIM_TIMEOUT_S": "5",
    }
    service = TrainerProcess(tmp_path, settings=settings)
    yield service
    service.end()


def test_a_run_survives_evictions_and_its_service(
    trainer: TrainerProcess, kubelet: Kubelet, api: client.ApiClient, namespace: str
) -> None:
    """Killed, the service finds the Job again; evicted, the run resumes from its checkpoint and spends no retry."""
    stub = trainer.start()
    stub.StartRun(make_request(trainer), timeout=60)
    train_a_little(stub)
    trainer.end(signal.SIGKILL)
    stub = trainer.start()
    step = train_a_little(stub)
    kubelet.evict(kubelet.pods()[0]["metadata"]["name"])
    wait_for(lambda: 2 == get(stub).attempts)
    wait_for(lambda: get(stub).latest.step > step)
    trainer.end()
    assert 2 == len(client.BatchV1Api(api).list_namespaced_job(namespace).items)
    (trainer.folder / "finish").touch()
    run = reach(trainer.start(), trainer_pb2.RUN_STATE_SUCCEEDED)
    assert (2, "") == (run.attempts, run.reason)
    assert 2 == len(kubelet.ran)


def test_a_cancelled_run_leaves_no_job(
    trainer: TrainerProcess, kubelet: Kubelet, api: client.ApiClient, namespace: str
) -> None:
    """Cancelling deletes the Job with its pod, and the run says so."""
    stub = trainer.start()
    stub.StartRun(make_request(trainer), timeout=60)
    train_a_little(stub)
    stub.CancelRun(trainer_pb2.CancelRunRequest(request_id="cancel", project_id="project", run_id="run-1"), timeout=60)
    reach(stub, trainer_pb2.RUN_STATE_CANCELLED)
    wait_for(lambda: not client.BatchV1Api(api).list_namespaced_job(namespace).items)
    assert [] == kubelet.pods()


def test_a_run_says_why_it_has_not_begun(trainer: TrainerProcess, kubelet: Kubelet) -> None:
    """What keeps the pod from starting is in the run's record, and gone from it once it has started."""
    kubelet.refuses = lambda pod: status_of(pod, "Pending", _PULL)
    stub = trainer.start()
    stub.StartRun(make_request(trainer), timeout=60)
    wait_for(lambda: "image cannot be pulled" in get(stub).reason)
    assert trainer_pb2.RUN_STATE_RUNNING == get(stub).state
    kubelet.refuses = lambda pod: None
    wait_for(lambda: not get(stub).reason and get(stub).latest.step >= 1)
