"""Attempts are followed by watching a real API server, over a line that breaks."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import yaml
from kubelet import Kubelet
from kubernetes import client
from rekindle.errors import DependencyUnavailable
from rekindle_trainer.adapters.kubernetes import KubernetesLauncher, connect
from rekindle_trainer.adapters.kubernetes_job import JobSpec, job_name
from servers.proxy import Proxy
from suites.launchers import launch, wait_for

RUNS = (True, "")


@dataclass
class Line:
    """A launcher that reaches its cluster by a line of its own, and what it asked over it."""

    launcher: KubernetesLauncher
    api: client.ApiClient
    proxy: Proxy
    asked: Counter[str] = field(default_factory=Counter)

    def look(self, handle: str) -> tuple[bool, str]:
        """Whether the attempt goes on, and what there is to say of it."""
        status = self.launcher.poll(handle)
        return status.is_running, status.reason

    def quiet(self, handle: str) -> bool:
        """Whether another look at the attempt asks the cluster for nothing."""
        before = self.asked.total()
        self.launcher.poll(handle)
        return before == self.asked.total()


@pytest.fixture
def line(kubeconfig: Path, namespace: str, spec: JobSpec, kubelet: Kubelet, tmp_path: Path) -> Iterator[Line]:
    known = yaml.safe_load(kubeconfig.read_text())
    server = known["clusters"][0]["cluster"]
    with Proxy(urlsplit(server["server"]).port or 443) as proxy:
        server["server"] = f"https://127.0.0.1:{proxy.port}"
        own = tmp_path / "kubeconfig"
        own.write_text(yaml.safe_dump(known))
        api = connect(own)
        line = Line(KubernetesLauncher(api, namespace, spec, log_folder=tmp_path / "logs"), api, proxy)
        _count(api, line.asked)
        yield line


def _count(api: client.ApiClient, asked: Counter[str]) -> None:
    plain = api.rest_client.request

    def counted(method: str, url: str, *arguments: Any, **options: Any) -> Any:
        query = dict(options.get("query_params") or ())
        kind = "watch" if "watch=true" in urlsplit(url).query.lower() or query.get("watch") else method
        asked[f"{kind} {urlsplit(url).path.rsplit('/', 1)[1]}"] += 1
        return plain(method, url, *arguments, **options)

    api.rest_client.request = counted


def test_looking_at_what_runs_asks_for_nothing(line: Line, tmp_path: Path) -> None:
    """However many attempts and looks, there are two watches; an end is seen all the same."""
    first, second = (launch(line.launcher, tmp_path, run) for run in ("run", "again"))
    wait_for(lambda: line.quiet(first) and line.quiet(second))
    before = line.asked.total()
    assert {RUNS} == {line.look(handle) for handle in (first, second) for _ in range(100)}
    assert before == line.asked.total()
    assert (1, 1) == (line.asked["watch jobs"], line.asked["watch pods"])
    line.launcher.stop(first)
    assert not line.launcher.poll(first).is_running
    assert RUNS == line.look(second)


def test_an_end_is_read_from_the_cluster(line: Line, kubelet: Kubelet, tmp_path: Path) -> None:
    """An eviction reaches a launcher that watches as it reaches one that asks."""
    handle = launch(line.launcher, tmp_path, "run")
    wait_for(lambda: line.quiet(handle))
    kubelet.evict(kubelet.pods()[0]["metadata"]["name"])
    wait_for(lambda: not line.launcher.poll(handle).is_running)
    assert line.launcher.poll(handle).was_preempted


def test_a_broken_line_is_taken_up_where_it_broke(line: Line, kubelet: Kubelet, tmp_path: Path) -> None:
    """While it is cut nobody is told that all goes on; healed, the watches resume without another list."""
    handle = launch(line.launcher, tmp_path, "run")
    wait_for(lambda: line.quiet(handle))
    lists = line.asked["GET jobs"]
    line.proxy.cut()
    wait_for(lambda: _is_unavailable(line.launcher, handle))
    line.proxy.heal()
    wait_for(lambda: not _is_unavailable(line.launcher, handle) and line.quiet(handle))
    assert lists == line.asked["GET jobs"]
    assert line.asked["watch jobs"] > 1
    kubelet.evict(kubelet.pods()[0]["metadata"]["name"])
    wait_for(lambda: not line.launcher.poll(handle).is_running)


def test_what_happened_while_the_line_was_cut_is_seen(
    line: Line, kubelet: Kubelet, api: client.ApiClient, namespace: str, tmp_path: Path
) -> None:
    """An attempt that was evicted meanwhile has ended, and one whose Job somebody deleted is gone."""
    evicted = launch(line.launcher, tmp_path, "run")
    pod = kubelet.pods()[0]["metadata"]["name"]
    deleted = launch(line.launcher, tmp_path, "again")
    wait_for(lambda: line.quiet(evicted) and line.quiet(deleted))
    line.proxy.cut()
    wait_for(lambda: _is_unavailable(line.launcher, evicted))
    kubelet.evict(pod)
    client.BatchV1Api(api).delete_namespaced_job(job_name("", "again", 1), namespace, propagation_policy="Background")
    line.proxy.heal()
    wait_for(lambda: not _is_unavailable(line.launcher, evicted))
    wait_for(lambda: line.launcher.poll(evicted).was_preempted)
    wait_for(lambda: "deleted" in line.launcher.poll(deleted).reason)


def test_without_the_right_to_watch_it_asks(line: Line, api: client.ApiClient, namespace: str, tmp_path: Path) -> None:
    """A role of an earlier release has it look each time, and nothing else changes."""
    rights = client.RbacAuthorizationV1Api(api)
    rules = [
        {"apiGroups": ["batch"], "resources": ["jobs"], "verbs": ["create", "get", "delete"]},
        {"apiGroups": [""], "resources": ["pods"], "verbs": ["list"]},
        {"apiGroups": [""], "resources": ["pods/log"], "verbs": ["get"]},
    ]
    rights.create_namespaced_role(namespace, {"metadata": {"name": "old"}, "rules": rules})
    user = {"kind": "User", "name": "trainer", "apiGroup": "rbac.authorization.k8s.io"}
    role = {"kind": "Role", "name": "old", "apiGroup": "rbac.authorization.k8s.io"}
    binding = {"metadata": {"name": "old"}, "subjects": [user], "roleRef": role}
    rights.create_namespaced_role_binding(namespace, binding)
    line.api.set_default_header("Impersonate-User", "trainer")
    handle = launch(line.launcher, tmp_path, "run")
    assert not line.quiet(handle)
    assert RUNS == line.look(handle)
    line.launcher.stop(handle)
    assert not line.launcher.poll(handle).is_running


def _is_unavailable(launcher: KubernetesLauncher, handle: str) -> bool:
    try:
        launcher.poll(handle)
    except DependencyUnavailable:
        return True
    return False
