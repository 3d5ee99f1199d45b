"""The node: it holds what was applied in one namespace and runs pods."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from cluster.pod import Pod
from cluster.services import Outside, Services
from cluster.store import CannotStart, Manifest, Store


def no_account(name: str) -> dict[str, str]:
    raise CannotStart(f"nobody gives tokens for service account {name}: there is no API server")


class Node:
    """`account` makes the files that a pod with a service account's token has mounted.

    A container that ends before its pod is ready is a mistake, except in pods whose names contain `restarts`: these
    are started again, as all are in a cluster.
    """

    def __init__(
        self,
        folder: Path,
        namespace: str,
        outside: Sequence[Outside] = (),
        account: Callable[[str], dict[str, str]] = no_account,
        restarts: str = "nothing",
    ) -> None:
        self._restarts = restarts
        self._folder = folder
        self._account = account
        self._numbers = itertools.count(1)
        self.store = Store()
        self.pods: list[Pod] = []
        self.services = Services(namespace, lambda: self.pods, outside)
        self.accounts = {"default"}

    def apply(self, manifest: Manifest) -> None:
        """Whatever pods need to find; other kinds change nothing here."""
        kind, name = manifest["kind"], manifest["metadata"]["name"]
        if kind in ("Secret", "ConfigMap"):
            self.store.apply(manifest)
        elif kind == "Service":
            self.services.apply(manifest)
        elif kind == "NetworkPolicy":
            self.services.policies.append(manifest)
        elif kind == "ServiceAccount":
            self.accounts.add(name)

    def start(self, owner: str, metadata: Mapping[str, Any], spec: Manifest) -> Pod:
        """A pod with what there is at this moment; CannotStart."""
        if (account := spec.get("serviceAccountName", "default")) not in self.accounts:
            raise CannotStart(f"{owner}: there is no service account {account}")
        name = f"{owner}-{next(self._numbers)}"
        pod = Pod(name, metadata.get("labels", {}), spec, self._folder / name, self._account)
        (self._folder / name).mkdir(parents=True)
        self.pods.append(pod)
        self.services.serve(pod)
        pod.start(self.store, self._links(spec), self.services.hosts())
        return pod

    def finished(self, pod: Pod, timeout_s: float) -> list[int]:
        """The exit codes of a pod's containers, once all have ended, or the first has failed."""
        deadline = time.monotonic() + timeout_s
        while None in (codes := pod.codes()) and not any(codes):
            if time.monotonic() > deadline:
                raise AssertionError(f"{pod.end.name} does not end within {timeout_s:.0f} s\n{pod.said()}")
            time.sleep(0.05)
        return [code for code in codes if code is not None]

    def wait_ready(self, pods: Sequence[Pod]) -> None:
        """By their startup probes within the time that these give, then by their readiness probes."""
        deadline = time.monotonic() + max(pod.start_timeout_s() for pod in pods)
        started: set[str] = set()
        while not all(pod.is_ready for pod in pods):
            for pod in pods:
                self._check_running(pod)
                if pod.end.name in started or pod.is_told("startupProbe"):
                    started.add(pod.end.name)
                    pod.is_ready = pod.is_told("readinessProbe")
            if time.monotonic() > deadline:
                late = [pod.said() for pod in pods if not pod.is_ready]
                raise AssertionError("not ready in time:\n" + "\n".join(late))
            time.sleep(0.1)

    def close(self) -> None:
        self.services.close()
        for pod in self.pods:
            pod.close()

    def _links(self, spec: Manifest) -> dict[str, str]:
        return self.services.links(all_services=spec.get("enableServiceLinks", True))

    def _check_running(self, pod: Pod) -> None:
        if pod.codes() == [None] * len(pod.containers):
            return
        if self._restarts in pod.end.name:
            time.sleep(1)
            pod.restart(self.store, self._links(pod.spec))
        else:
            raise AssertionError(f"a container has ended:\n{pod.said()}")
