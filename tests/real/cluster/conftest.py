"""A real API server and its controllers, a namespace for each test, and launchers in it."""

from __future__ import annotations

import itertools
import os
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from kubelet import Kubelet
from kubernetes import client, config
from rekindle_trainer.adapters.kubernetes import KubernetesLauncher, connect
from rekindle_trainer.adapters.kubernetes_job import JobSpec
from rekindle_trainer.adapters.kubernetes_status import Patience
from suites.launchers import CHILD, wait_for

_NUMBERS = itertools.count(1)


@pytest.fixture
def api(kubeconfig: Path) -> client.ApiClient:
    return config.new_client_from_config(str(kubeconfig))


@pytest.fixture
def namespace(api: client.ApiClient) -> str:
    """A new one for each test."""
    name = f"test-{os.getpid()}-{next(_NUMBERS)}"
    core = client.CoreV1Api(api)
    core.create_namespace({"metadata": {"name": name}})
    # Pods are admitted once their namespace has its service account.
    wait_for(lambda: core.list_namespaced_service_account(name).items)
    return name


@pytest.fixture
def kubelet(api: client.ApiClient, namespace: str) -> Iterator[Kubelet]:
    kubelet = Kubelet(api, namespace)
    kubelet.start()
    yield kubelet
    kubelet.close()
    assert [] == kubelet.errors


@pytest.fixture
def spec(tmp_path: Path) -> JobSpec:
    """Runs the suite's program, by this interpreter."""
    return JobSpec(
        image="rekindle-trainer@sha256:" + "0" * 64,
        command=[sys.executable, "-c", CHILD, "{run_id}", "{attempt}", str(tmp_path)],
        environment={"REKINDLE_TRAINER_THREADS": "3"},
        gpus=0,
        stop_grace_s=10,
    )


@pytest.fixture
def make_launcher(kubeconfig: Path, namespace: str, spec: JobSpec, kubelet: Kubelet, tmp_path: Path) -> Any:
    """Launchers over the same namespace."""

    def make(stop_grace_s: float = 10.0, patience: Patience | None = None, **changes: Any) -> KubernetesLauncher:
        changed = replace(spec, stop_grace_s=stop_grace_s, **changes)
        return KubernetesLauncher(
            connect(kubeconfig), namespace, changed, patience=patience, log_folder=tmp_path / "logs"
        )

    return make
