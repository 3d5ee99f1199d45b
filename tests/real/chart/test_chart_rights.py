"""The chart's role against a real API server: the launcher can do its work with it, and nothing else."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml
from chart import PRODUCTION, render
from cluster.control_plane import ControlPlane
from kubelet import Kubelet
from kubernetes import client, config
from kubernetes.client.exceptions import ApiException
from rekindle_trainer.adapters.kubernetes import KubernetesLauncher, connect
from rekindle_trainer.adapters.kubernetes_job import JobSpec
from suites.launchers import wait_for

IMAGE = "rekindle-trainer@sha256:" + "0" * 64
VERBS = ("get", "list", "watch", "create", "update", "patch", "delete", "deletecollection")
RESOURCES = (
    ("", "pods", ""),
    ("", "pods", "log"),
    ("", "pods", "exec"),
    ("", "pods", "eviction"),
    ("", "secrets", ""),
    ("", "configmaps", ""),
    ("", "services", ""),
    ("", "serviceaccounts", "token"),
    ("", "nodes", ""),
    ("", "namespaces", ""),
    ("", "persistentvolumeclaims", ""),
    ("batch", "jobs", ""),
    ("batch", "jobs", "status"),
    ("batch", "cronjobs", ""),
    ("apps", "deployments", ""),
    ("rbac.authorization.k8s.io", "roles", ""),
    ("rbac.authorization.k8s.io", "rolebindings", ""),
)


@dataclass(frozen=True)
class Cluster:
    """The API as an administrator and as the trainer's service account, in the release's namespace."""

    admin: client.ApiClient
    launcher: client.ApiClient
    kubeconfig: Path
    namespace: str = "ns"


@pytest.fixture(scope="module")
def cluster(kubeconfig: Path, tmp_path_factory: pytest.TempPathFactory) -> Cluster:
    """A namespace in which the chart's rights for runs of two nodes are applied."""
    plane = ControlPlane(kubeconfig, "ns")
    plane.apply_rights(render({**PRODUCTION, "trainer.jobs.nodes": "2"}).objects)
    own = tmp_path_factory.mktemp("launcher") / "kubeconfig"
    own.write_text(_as_account(kubeconfig, plane.token("r-rekindle-trainer")))
    return Cluster(plane.admin, config.new_client_from_config(str(own)), own)


def test_the_launcher_works_with_the_rights_of_the_chart(cluster: Cluster, tmp_path: Path) -> None:
    """Launch, poll, logs and stop, by the account's own token."""
    kubelet = Kubelet(cluster.admin, cluster.namespace)
    kubelet.start()
    try:
        spec = JobSpec(image=IMAGE, command=[sys.executable, "-c", "import time; time.sleep(60)"], gpus=0)
        launcher = KubernetesLauncher(connect(cluster.kubeconfig), cluster.namespace, spec, log_folder=tmp_path)
        handle = launcher.launch("run", 1)
        assert handle == launcher.find("run", 1)
        wait_for(lambda: kubelet.ran)
        assert launcher.poll(handle).is_running
        assert not launcher.stop(handle).is_running
    finally:
        kubelet.close()


def test_the_launcher_can_do_nothing_else(cluster: Cluster) -> None:
    """Of every verb on every kind that matters, in its namespace and in another, only what the role says."""
    allowed = {
        (resource, subresource, verb)
        for group, resource, subresource in RESOURCES
        for verb in VERBS
        if _may(cluster, verb, group, resource, subresource, cluster.namespace)
    }
    assert allowed == {
        ("jobs", "", "create"),
        ("jobs", "", "get"),
        ("jobs", "", "list"),
        ("jobs", "", "watch"),
        ("jobs", "", "delete"),
        ("pods", "", "list"),
        ("pods", "", "watch"),
        ("pods", "log", "get"),
        ("services", "", "create"),
    }
    elsewhere = {
        (resource, verb)
        for group, resource, subresource in RESOURCES
        for verb in VERBS
        if _may(cluster, verb, group, resource, subresource, "default")
    }
    assert set() == elsewhere


def test_a_secret_cannot_be_read(cluster: Cluster) -> None:
    """Not only by the books: the call itself is refused."""
    with pytest.raises(ApiException) as caught:
        client.CoreV1Api(cluster.launcher).list_namespaced_secret(cluster.namespace)
    assert 403 == caught.value.status


def _may(cluster: Cluster, verb: str, group: str, resource: str, subresource: str, namespace: str) -> bool:
    attributes = {
        "verb": verb,
        "group": group,
        "resource": resource,
        "subresource": subresource,
        "namespace": namespace,
    }
    review = {"spec": {"resourceAttributes": attributes}}
    answer = client.AuthorizationV1Api(cluster.launcher).create_self_subject_access_review(review)
    return bool(answer.status.allowed)


def _as_account(kubeconfig: Path, token: str) -> str:
    known = yaml.safe_load(kubeconfig.read_text())
    known["users"] = [{"name": "admin", "user": {"token": token}}]
    return yaml.safe_dump(known)
