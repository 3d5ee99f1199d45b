"""The chart run: what its manifests say, as a cluster would, with a PostgreSQL, an object store, TLS and tokens.

One release after the installation page, from its installation to its end; the tests follow each other.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import pytest
from cluster.container import why_not
from cluster.control_plane import ControlPlane
from cluster.node import Node, no_account
from cluster.release import Release
from cluster.site import HERE, NAMESPACE, Site, rendered
from cluster.store import Manifest
from rekindle.client import Client
from servers.kubernetes import TOOLS

pytestmark = pytest.mark.skipif(bool(why_not()), reason=why_not())
SERVICES = ("scheduler", "inference", "trainer")


@dataclass
class Installation:
    """A release that is installed, and who may call it."""

    node: Node
    release: Release
    objects: list[Manifest]
    tokens: dict[str, str]
    authority: Path
    plane: ControlPlane | None

    def port_of(self, component: str) -> int:
        """Of this machine, as `kubectl port-forward svc/...` would make it."""
        (service,) = [
            e for e in self.objects if (e["kind"], e["metadata"]["name"]) == ("Service", f"rekindle-{component}")
        ]
        return self.node.services.endpoints(service)[0].line_to(service["spec"]["ports"][0]["port"])

    def client(self) -> Client:
        """As the page says for somebody outside the cluster."""
        scheduler, inference, trainer = (f"127.0.0.1:{self.port_of(each)}" for each in SERVICES)
        return Client.connect(
            scheduler,
            inference=inference,
            trainer=trainer,
            ca=self.authority,
            token=self.tokens["admin-token"],
            server_name="rekindle-scheduler",
        )


@pytest.fixture(scope="module")
def installed(
    site: Site, tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest
) -> Iterator[Installation]:
    """With the Secrets, values and names of the page; training in Jobs where there is an API server."""
    folder = tmp_path_factory.mktemp("installed")
    objects = rendered(folder / "values", HERE)
    plane = ControlPlane(request.getfixturevalue("kubeconfig"), NAMESPACE) if TOOLS.exists() else None
    if plane is not None:
        plane.apply_rights(objects)
    outside = site.outside if plane is None else [*site.outside, plane.outside]
    node = Node(folder / "pods", NAMESPACE, outside, no_account if plane is None else plane.account_files)
    try:
        tokens = site.fill(node.store, folder / "tls")
        release = Release(node, objects)
        release.install()
        yield Installation(node, release, objects, tokens, folder / "tls" / "authority.pem", plane)
    finally:
        node.close()


def test_helm_test_takes_a_label_through(installed: Installation) -> None:
    """After the migrations have run and every pod has become ready by its own probes."""
    assert "self-test passed" in installed.release.test()
    assert [] == installed.node.services.denied
    said = [line for pod in installed.release.pods for line in pod.said().splitlines()]
    assert [] == [line for line in said if '"level": "ERROR"' in line]


def test_the_way_in_from_outside_is_the_pages(installed: Installation) -> None:
    """One certificate, one --server-name and the administrator's token reach all three services."""
    with installed.client() as client:
        told = client.server_info()
    assert set(SERVICES) == set(told)
    assert {"hospital-a"} == {each.installation_id for each in told.values()}
    assert ("subprocess" if installed.plane is None else "kubernetes") in told["trainer"].capabilities


def test_pods_are_as_restricted_as_they_say(installed: Installation) -> None:
    """What runs is nobody in particular, may become nobody else, and writes nothing but what is mounted for it."""
    for pod in installed.release.pods:
        (container,) = pod.containers
        said = dict(line.split(":\t", 1) for line in (container.inside / "status").read_text().splitlines())
        assert "10001\t10001\t10001\t10001" == said["Uid"] == said["Gid"]
        assert ("0000000000000000", "1") == (said["CapBnd"], said["NoNewPrivs"])
        mounts = [line.split() for line in (container.inside / "mounts").read_text().splitlines()]
        writable = {place for _, place, kind, options, *_ in mounts if "rw" in options.split(",") and kind != "proc"}
        devices = {place for place in writable if place.startswith("/dev/")}
        assert {"/tmp", "/var/lib/rekindle"} == writable - devices


def test_prometheus_finds_every_service(installed: Installation) -> None:
    """By what the ServiceMonitor selects, at the ports and the path that it names."""
    (monitor,) = [each for each in installed.objects if each["kind"] == "ServiceMonitor"]
    (endpoint,) = monitor["spec"]["endpoints"]
    scraped = {}
    for service in installed.node.services.selected(monitor["spec"]["selector"]["matchLabels"]):
        (port,) = [port for port in service["spec"]["ports"] if port["name"] == endpoint["port"]]
        for pod in installed.node.services.endpoints(service):
            line = pod.line_to(pod.end.ports[port["targetPort"]])
            with urlopen(f"http://127.0.0.1:{line}{endpoint['path']}", timeout=5) as answer:
                scraped[pod.end.name] = answer.read().decode()
    assert {pod.end.name for pod in installed.release.pods} == set(scraped)
    for metric in ("rekindle_leases_active", "rekindle_inference_requests_total", "rekindle_training_runs"):
        assert any(f"\n{metric}" in text for text in scraped.values()), metric


def test_a_flow_that_is_not_in_the_policies_is_stopped(installed: Installation) -> None:
    """The trainer cannot call the scheduler: the lines here are cut where a policy does not let them through."""
    (trainer,) = [pod for pod in installed.release.pods if "trainer" in pod.end.name]
    hosts = dict(reversed(line.split()[:2]) for line in installed.node.services.hosts().splitlines())
    address = hosts["rekindle-scheduler"]
    stopped = len(installed.node.services.denied)
    with trainer.network.connect_to(address, 50051) as line:
        assert b"" == line.recv(1)
    assert ("trainer", "scheduler", 50051) == _components(installed.node.services.denied[stopped])


def test_a_job_trains_with_what_the_launcher_gives_it(installed: Installation) -> None:
    """Made by the trainer's own token; its pod reaches the objects under its own policy and says how it gets on."""
    if installed.plane is None:
        pytest.skip(f"no Kubernetes API server at hand: {TOOLS} is not there")
    with installed.plane.kubelet(installed.node) as kubelet, installed.client() as client:
        (project,) = client.projects()
        (submission,) = project.submissions()
        project.review(submission.id, "accept")
        (run,) = _until(lambda: project.runs())
        _until(
            lambda: (
                kubelet.errors
                or any("run" in pod.end.name and pod.containers[0].process for pod in installed.node.pods)
            )
        )
        assert [] == kubelet.errors
        # Written to the object store over TLS, and found there by the trainer.
        assert "prepare" == next(run.watch(timeout_s=60)).phase
        run.cancel()
    assert [] == [each for each in installed.node.services.denied if "run" in each[0]]


def test_an_upgrade_leaves_nobody_out(installed: Installation) -> None:
    """Migrations run beside the Services of the release, new pods become ready, the old ones end in an orderly way."""
    installed.release.upgrade()
    with installed.client() as client:
        assert 1 == len(list(client.projects()))
    installed.release.uninstall()


def _components(flow: tuple[str, str, int]) -> tuple[str, str, int]:
    return flow[0].split("-")[1], flow[1].split("-")[1], flow[2]


def _until(look: Any, timeout_s: float = 30.0) -> Any:
    deadline = time.monotonic() + timeout_s
    while not (found := look()):
        assert time.monotonic() < deadline, "waited too long"
        time.sleep(0.1)
    return found
