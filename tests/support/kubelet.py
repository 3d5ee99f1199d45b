"""What runs pods where there is no node: their commands as child processes, their statuses into the API."""

from __future__ import annotations

import base64
import json
import os
import re
import signal
import subprocess
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from kubernetes import client
from kubernetes.client.exceptions import ApiException


def _now() -> str:
    """As the API writes moments."""
    return datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")


@dataclass
class Child:
    """The process of a pod."""

    process: subprocess.Popen[bytes]
    told_to_stop_at: float | None = None
    is_reported: bool = False
    started_at: str = field(default_factory=_now)


def status_of(pod: dict[str, Any], phase: str, state: dict[str, Any], **more: Any) -> dict[str, Any]:
    """A pod's status with the state of its one container."""
    container = pod["spec"]["containers"][0]
    return {
        "phase": phase,
        "containerStatuses": [
            {
                "name": container["name"],
                "image": container["image"],
                "imageID": "",
                "ready": phase == "Running",
                "restartCount": 0,
                "state": state,
            }
        ],
        **more,
    }


class Kubelet(threading.Thread):
    """Looks at the pods of one namespace a few times a second, as a node would at its own.

    `refuses(pod)` gives the status of a pod that is not to be started, or None for one that is. `starts(pod)` gives
    the process of a pod, which `terminates` asks to end; by default it is its command, in this machine's file system
    and network.
    """

    def __init__(self, api: client.ApiClient, namespace: str) -> None:
        super().__init__(name="kubelet", daemon=True)
        self._core = client.CoreV1Api(api)
        self._namespace = namespace
        self._children: dict[str, Child] = {}
        self._ends = threading.Event()
        self.refuses: Callable[[dict[str, Any]], dict[str, Any] | None] = lambda pod: None
        self.starts: Callable[[dict[str, Any]], subprocess.Popen[bytes]] = self._run_command
        self.terminates: Callable[[subprocess.Popen[bytes]], None] = lambda process: os.kill(
            process.pid, signal.SIGTERM
        )
        #: What containers that end badly say, instead of Error.
        self.failure_reason = "Error"
        #: Commands that were run, oldest first, with the environment that they were given.
        self.ran: list[tuple[list[str], dict[str, str]]] = []
        self.errors: list[Exception] = []

    def run(self) -> None:
        while not self._ends.wait(0.1):
            try:
                for pod in self.pods():
                    self._look_at(pod)
            except Exception as error:
                # A pod that was deleted between two looks is nobody's mistake.
                if getattr(error, "status", None) != 404:
                    self.errors.append(error)
        for child in self._children.values():
            with suppress(ProcessLookupError):
                os.killpg(child.process.pid, signal.SIGKILL)
            child.process.wait()

    def close(self) -> None:
        self._ends.set()
        self.join()

    def pods(self) -> list[dict[str, Any]]:
        return self._api(self._core.list_namespaced_pod, self._namespace)["items"]

    def evict(self, name: str) -> None:
        """As a node under pressure does: the process is ended and the pod failed, with the reason Evicted."""
        (pod,) = [pod for pod in self.pods() if pod["metadata"]["name"] == name]
        child = self._children[pod["metadata"]["uid"]]
        child.is_reported = True
        os.killpg(child.process.pid, signal.SIGTERM)
        child.process.wait(20)
        self.set_status(pod, {"phase": "Failed", "reason": "Evicted", "message": "The node was low on memory."})

    def set_status(self, pod: dict[str, Any], status: dict[str, Any]) -> None:
        self._core.patch_namespaced_pod_status(pod["metadata"]["name"], self._namespace, {"status": status})

    def _api(self, method: Callable[..., Any], *arguments: Any) -> Any:
        return json.loads(method(*arguments, _preload_content=False, _request_timeout=10).data)

    def _look_at(self, pod: dict[str, Any]) -> None:
        child = self._children.get(pod["metadata"]["uid"])
        if pod["metadata"].get("deletionTimestamp"):
            self._end(pod, child)
        elif child is None:
            if pod["status"].get("phase") == "Pending":
                self._start(pod)
        elif child.process.poll() is not None and not child.is_reported:
            child.is_reported = True
            self._report_end(pod, child)

    def _bind(self, pod: dict[str, Any]) -> None:
        """As a scheduler does: pods without a node are deleted at once, without their grace."""
        name = pod["metadata"]["name"]
        binding = {"metadata": {"name": name}, "target": {"kind": "Node", "name": "here"}}
        self._core.create_namespaced_pod_binding(name, self._namespace, binding, _preload_content=False)

    def _start(self, pod: dict[str, Any]) -> None:
        refused = self.refuses(pod)
        if refused is not None:
            self.set_status(pod, refused)
            return
        self._bind(pod)
        child = self._children[pod["metadata"]["uid"]] = Child(self.starts(pod))
        self.set_status(pod, status_of(pod, "Running", {"running": {"startedAt": child.started_at}}))

    def _run_command(self, pod: dict[str, Any]) -> subprocess.Popen[bytes]:
        container = pod["spec"]["containers"][0]
        environment = self._environment(pod, container)
        command = [re.sub(r"\$\((\w+)\)", lambda m: environment.get(m[1], m[0]), part) for part in container["command"]]
        self.ran.append((command, environment))
        return subprocess.Popen(
            command, env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, start_new_session=True
        )

    def _environment(self, pod: dict[str, Any], container: dict[str, Any]) -> dict[str, str]:
        """Clean: what the pod names, and the path that an image has."""
        environment = {"PATH": "/usr/local/bin:/usr/bin:/bin"}
        for source in container.get("envFrom", []):
            secret = self._api(self._core.read_namespaced_secret, source["secretRef"]["name"], self._namespace)
            environment |= {key: base64.b64decode(value).decode() for key, value in secret["data"].items()}
        environment |= {item["name"]: self._value(item) for item in container.get("env", [])}
        index = pod["metadata"].get("annotations", {}).get("batch.kubernetes.io/job-completion-index")
        return environment | ({} if index is None else {"JOB_COMPLETION_INDEX": index})

    def _value(self, item: dict[str, Any]) -> str:
        """Of one variable: what it says, or what the Secret holds that it refers to. The API keeps no empty value."""
        if "valueFrom" not in item:
            return item.get("value", "")
        source = item["valueFrom"]["secretKeyRef"]
        secret = self._api(self._core.read_namespaced_secret, source["name"], self._namespace)
        return base64.b64decode(secret["data"][source["key"]]).decode()

    def _report_end(self, pod: dict[str, Any], child: Child) -> None:
        code = child.process.returncode
        code = code if code >= 0 else 128 - code
        reason = "Completed" if code == 0 else self.failure_reason
        state = {"exitCode": code, "reason": reason, "startedAt": child.started_at, "finishedAt": _now()}
        self.set_status(pod, status_of(pod, "Succeeded" if code == 0 else "Failed", {"terminated": state}))

    def _end(self, pod: dict[str, Any], child: Child | None) -> None:
        if child is not None and child.process.poll() is None:
            if child.told_to_stop_at is None:
                child.told_to_stop_at = time.monotonic()
                self.terminates(child.process)
            elif time.monotonic() - child.told_to_stop_at > pod["spec"]["terminationGracePeriodSeconds"]:
                os.killpg(child.process.pid, signal.SIGKILL)
            return
        if child is not None:
            # A container is a process namespace: whatever is left in it goes too.
            with suppress(ProcessLookupError):
                os.killpg(child.process.pid, signal.SIGKILL)
            if not child.is_reported:
                child.is_reported = True
                self._report_end(pod, child)
                return
        with suppress(ApiException):
            self._core.delete_namespaced_pod(pod["metadata"]["name"], self._namespace, grace_period_seconds=0)
