"""The whole loop where training runs in Jobs: real training, in pods that are given nothing but what their Job says."""

from __future__ import annotations

import base64
import json
import sys
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path

import pytest
from kubelet import Kubelet
from kubernetes import client
from rekindle.api.trainer.v1 import trainer_pb2
from rekindle.projects import Project
from rekindle_local.stack import Stack, StackOptions
from servers.minio import ACCESS_KEY, SECRET_KEY, MinioServer
from servers.postgresql import PostgresqlServer
from small_campaign import Ending, campaign
from suites.launchers import wait_for
from trainer_process import TrainerProcess, get, make_request, reach, train_a_little

pytestmark = pytest.mark.timeout(600)
#: In both campaigns, as sums depend on it.
THREADS = {"REKINDLE_TRAINER_THREADS": "1"}


def _jobs(kubeconfig: Path, namespace: str) -> dict[str, str]:
    """Settings of a training service, without its prefix."""
    return {
        "LAUNCHER": "kubernetes",
        "KUBERNETES_CONFIG": str(kubeconfig),
        "KUBERNETES_NAMESPACE": namespace,
        "KUBERNETES_IMAGE": "rekindle-trainer@sha256:" + "0" * 64,
        "KUBERNETES_PYTHON": sys.executable,
        "KUBERNETES_GPUS": "0",
    }


@pytest.fixture
def secret(api: client.ApiClient, namespace: str) -> Mapping[str, str]:
    """The settings that lead to a Secret with the store's credentials."""
    values = {"access-key": ACCESS_KEY, "secret-key": SECRET_KEY}
    data = {key: base64.b64encode(value.encode()).decode() for key, value in values.items()}
    client.CoreV1Api(api).create_namespaced_secret(namespace, {"metadata": {"name": "store"}, "data": data})
    names = {f"REKINDLE_PROCESS_OBJECTS_{key.upper().replace('-', '_')}": key for key in values}
    return {"KUBERNETES_SECRET": "store", "KUBERNETES_SECRET_KEYS": json.dumps(names)}


@pytest.fixture
def stack(
    tmp_path: Path, minio: MinioServer, postgresql: PostgresqlServer, kubeconfig: Path, namespace: str,
    secret: Mapping[str, str],
) -> Iterator[Stack]:  # fmt: skip
    """The three services on PostgreSQL and MinIO, training in Jobs."""
    bucket = minio.make_bucket(f"jobs-{namespace}")
    store = {"URL": f"s3://{bucket}", "ENDPOINT": minio.url, "ACCESS_KEY": ACCESS_KEY, "SECRET_KEY": SECRET_KEY}
    settings = dict(THREADS)
    for service in ("SCHEDULER", "INFERENCE", "TRAINER"):
        settings[f"REKINDLE_{service}_DATABASE_URL"] = postgresql.create_database()
    for service in ("INFERENCE", "TRAINER"):
        settings |= {f"REKINDLE_{service}_OBJECTS_{name}": value for name, value in store.items()}
    trainer = {**_jobs(kubeconfig, namespace), **secret}
    settings |= {f"REKINDLE_TRAINER_{name}": value for name, value in trainer.items()}
    with Stack(StackOptions(state=tmp_path / "jobs", port=0, environment=settings)) as stack:
        yield stack


@pytest.fixture(scope="module")
def embedded(tmp_path_factory: pytest.TempPathFactory) -> Ending:
    """The same campaign on embedded defaults, trained by child processes."""
    folder = tmp_path_factory.mktemp("embedded")
    with ExitStack() as resources:
        stack = resources.enter_context(Stack(StackOptions(state=folder / "stack", port=0, environment=THREADS)))
        client_ = resources.enter_context(stack.client())
        return campaign(client_, folder / "files", lambda _stage, _project: None)


def test_jobs_train_what_child_processes_train(
    stack: Stack, kubelet: Kubelet, api: client.ApiClient, namespace: str, embedded: Ending, tmp_path: Path
) -> None:
    """To the published model and the complete set, with the training service killed while the first Job runs."""

    def disturb(stage: str, _project: Project) -> None:
        if stage == "training":
            wait_for(lambda: kubelet.ran)
            stack.kill_service("trainer")
            stack.start_service("trainer")

    with stack.client() as connected:
        ending = campaign(connected, tmp_path / "files", disturb)
    assert embedded == ending
    jobs = client.BatchV1Api(api).list_namespaced_job(namespace)
    assert len(jobs.items) == len(kubelet.ran) == sum(job.status.succeeded for job in jobs.items)
    assert SECRET_KEY not in json.dumps(api.sanitize_for_serialization(jobs))
    for command, environment in kubelet.ran:
        assert "rekindle_trainer.process" in command
        assert SECRET_KEY == environment["REKINDLE_PROCESS_OBJECTS_SECRET_KEY"]
        assert [] == [name for name in environment if name.startswith(("PYTEST", "REKINDLE_SCHEDULER"))]


def test_two_services_make_one_job(
    tmp_path: Path, postgresql: PostgresqlServer, kubeconfig: Path, namespace: str, kubelet: Kubelet,
    api: client.ApiClient,
) -> None:  # fmt: skip
    """Over one database, each would start what waits: every run has one Job, and survives either service."""
    common = {
        **_jobs(kubeconfig, namespace),
        "DATABASE_URL": postgresql.create_database(),
        "MAX_CONCURRENT_RUNS": "8",
        "CLAIM_TIMEOUT_S": "5",
    }
    objects = tmp_path / "one" / "objects"
    services = [TrainerProcess(tmp_path / name, settings=common, objects_folder=objects) for name in ("one", "two")]
    for service in services:
        service.folder.mkdir()
    runs = [f"run-{number}" for number in range(6)]
    try:
        stubs = [service.start() for service in services]
        for number, run in enumerate(runs):
            stubs[number % 2].StartRun(make_request(services[0], run), timeout=60)
        wait_for(lambda: len(runs) == len(kubelet.ran))
        train_a_little(stubs[1])
        services[0].end(9)
        (tmp_path / "one" / "finish").touch()
        ended = [reach(stubs[1], trainer_pb2.RUN_STATE_SUCCEEDED, run) for run in runs]
        assert {1} == {run.attempts for run in ended}
        assert len(runs) == len(client.BatchV1Api(api).list_namespaced_job(namespace).items) == len(kubelet.ran)
        assert [] == [run for run in runs if get(stubs[1], run).reason]
    finally:
        for service in services:
            service.end()
