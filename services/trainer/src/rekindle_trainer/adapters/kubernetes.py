"""A launcher for clusters: each attempt is one Kubernetes Job.

Running attempts are followed by watching. Whatever looks like an end is read once more from the API server before it
counts: two watches may be heard in another order than things happened.
"""

from __future__ import annotations

import functools
import json
import logging
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from kubernetes import client, config
from kubernetes.client.exceptions import ApiException
from kubernetes.config.config_exception import ConfigException
from rekindle.errors import DependencyUnavailable, InvalidInput
from urllib3.exceptions import HTTPError

from rekindle_trainer.adapters.kubernetes_job import (
    ATTEMPT,
    CONTAINER,
    RUN,
    JobSpec,
    Manifest,
    installation_selector,
    job_manifest,
    job_name,
    service_manifest,
)
from rekindle_trainer.adapters.kubernetes_status import Patience, read_status
from rekindle_trainer.adapters.kubernetes_watch import Reflection
from rekindle_trainer.ports import LaunchError, ProcessStatus

_log = logging.getLogger(__name__)
#: Connect and read time-out of one request. A create must be over before a claim is given up.
_TIMEOUT_S: Final = (3.0, 10.0)
_POLL_S: Final = 0.3
#: Beyond the grace, for the cluster to notice that a pod has gone.
_GONE_MARGIN_S: Final = 30.0
_LOG_BYTES: Final = 4 * 1024 * 1024
_NOT_FOUND, _CONFLICT = 404, 409
#: The label by which the pods of a Job are told from those of an earlier one of its name.
_CONTROLLER: Final = "controller-uid"


@dataclass(frozen=True, slots=True)
class Handle:
    """By which a Job is found again; the uid tells it from another one of its name."""

    name: str
    uid: str

    def text(self) -> str:
        return json.dumps({"job": self.name, "uid": self.uid})

    @classmethod
    def read(cls, text: str) -> Handle:
        raw = json.loads(text)
        return cls(str(raw["job"]), str(raw["uid"]))


def connect(kubeconfig: Path | None) -> client.ApiClient:
    """A client by `kubeconfig`, or by the pod's own service account; InvalidInput where neither works."""
    try:
        if kubeconfig is not None:
            return config.new_client_from_config(str(kubeconfig))
        configuration = client.Configuration()
        config.load_incluster_config(configuration)
        return client.ApiClient(configuration)
    except ConfigException as error:
        raise InvalidInput(
            f"the Kubernetes API cannot be configured ({error}): run inside the cluster with a service account, or set "
            "kubernetes_config to a kubeconfig file",
            reason="KUBERNETES_CONFIG",
        ) from None


class KubernetesLauncher:
    """Makes, follows and deletes Jobs in one namespace. Several services may do so at once.

    Needs, in that namespace: jobs create, get, list, watch, delete; pods list, watch; pods/log get; services create for
    several nodes. Where it may not watch, it asks instead.
    """

    def __init__(
        self,
        api: client.ApiClient,
        namespace: str,
        spec: JobSpec,
        *,
        patience: Patience | None = None,
        log_folder: Path | None = None,
    ) -> None:
        self._jobs = client.BatchV1Api(api)
        self._core = client.CoreV1Api(api)
        self._namespace = namespace
        self._spec = spec
        self._patience = patience or Patience()
        self._log_folder = log_folder
        ours = {"namespace": namespace, "label_selector": installation_selector(spec.installation_id)}
        self._seen_jobs = Reflection("jobs", functools.partial(self._jobs.list_namespaced_job, **ours))
        #: By uid, Jobs that were told to end here: of those the cluster is asked, as what was watched may lag behind.
        self._ending: set[str] = set()
        self._seen_pods = Reflection("pods", functools.partial(self._core.list_namespaced_pod, **ours))

    @property
    def gpus(self) -> int:
        return self._spec.gpus * self._spec.nodes

    def launch(self, run_id: str, attempt: int) -> str:
        """Make the attempt's Job, or take the one that is there already: somebody made it and could not say so."""
        manifest = job_manifest(self._spec, run_id, attempt)
        try:
            job = self._create(manifest)
        except ApiException as error:
            if error.status != _CONFLICT:
                raise LaunchError(_told(error)) from None
            job = self._own_job(run_id, attempt)
        handle = Handle(job["metadata"]["name"], job["metadata"]["uid"])
        if self._spec.nodes > 1:
            self._create_service(service_manifest(self._spec, run_id, attempt, handle.uid))
        _log.info("attempt %d is Job %s", attempt, handle.name, extra={"action": "run.launched"})
        return handle.text()

    def find(self, run_id: str, attempt: int) -> str | None:
        job = self._job(job_name(self._spec.installation_id, run_id, attempt))
        if job is None or job["metadata"].get("deletionTimestamp"):
            return None
        return Handle(job["metadata"]["name"], job["metadata"]["uid"]).text()

    def poll(self, handle: str) -> ProcessStatus:
        found = Handle.read(handle)
        seen = self._seen(found)
        return seen if seen is not None and seen.is_running else self._ask(found)

    def _seen(self, found: Handle) -> ProcessStatus | None:
        """By what was watched; None where that does not tell."""
        jobs, pods = self._seen_jobs.records(), self._seen_pods.records()
        job = jobs.get(found.uid) if jobs is not None and found.uid not in self._ending else None
        if job is None or pods is None or job["metadata"].get("deletionTimestamp"):
            return None
        own = [pod for pod in pods.values() if pod["metadata"]["labels"].get(_CONTROLLER) == found.uid]
        return read_status(job, own, datetime.now(UTC), self._patience)

    def _ask(self, found: Handle) -> ProcessStatus:
        job = self._job(found.name)
        if job is None or job["metadata"]["uid"] != found.uid:
            return ProcessStatus(is_running=False, reason="its Job was deleted")
        if job["metadata"].get("deletionTimestamp"):
            return ProcessStatus(is_running=True, reason="its Job is being deleted")
        status = read_status(job, self._pods(found), datetime.now(UTC), self._patience)
        if not status.is_running:
            self._keep_log(job, found)
            if not _has_ended(job):
                # Its pod could still start one day, and it has been given up here.
                self.terminate(found.text())
        return status

    def terminate(self, handle: str) -> None:
        found = Handle.read(handle)
        self._ending.add(found.uid)
        options = {"propagationPolicy": "Foreground", "preconditions": {"uid": found.uid}}
        try:
            self._call(self._jobs.delete_namespaced_job, found.name, self._namespace, body=options)
        except ApiException as error:
            # Conflict: another Job has the name by now.
            if error.status not in (_NOT_FOUND, _CONFLICT):
                raise _unavailable(_told(error)) from None

    def stop(self, handle: str) -> ProcessStatus:
        """Delete the Job and wait until its last pod is gone; DependencyUnavailable where a node does not answer."""
        found = Handle.read(handle)
        exit_code: int | None = None
        self.terminate(handle)
        deadline = time.monotonic() + self._spec.stop_grace_s + _GONE_MARGIN_S
        while True:
            pods, job = self._pods(found), self._job(found.name)
            exit_code = next((code for pod in pods if (code := _exit_code(pod)) is not None), exit_code)
            if not pods and (job is None or job["metadata"]["uid"] != found.uid):
                return ProcessStatus(is_running=False, exit_code=exit_code, reason="its Job was deleted")
            if time.monotonic() > deadline:
                raise _unavailable(f"the pods of Job {found.name} do not end: does their node answer?")
            time.sleep(_POLL_S)

    def _create(self, manifest: Manifest) -> dict[str, Any]:
        return self._call(self._jobs.create_namespaced_job, self._namespace, manifest)

    def _create_service(self, manifest: Manifest) -> None:
        try:
            self._call(self._core.create_namespaced_service, self._namespace, manifest)
        except ApiException as error:
            if error.status != _CONFLICT:
                raise LaunchError(_told(error)) from None

    def _own_job(self, run_id: str, attempt: int) -> dict[str, Any]:
        name = job_name(self._spec.installation_id, run_id, attempt)
        job = self._job(name)
        if job is None:
            raise _unavailable(f"Job {name} was there and is gone again")
        annotations = job["metadata"].get("annotations") or {}
        if (annotations.get(RUN), annotations.get(ATTEMPT)) != (run_id, str(attempt)):
            raise LaunchError(f"Job {name} belongs to something else: delete it, or give this installation its own id")
        return job

    def _job(self, name: str) -> dict[str, Any] | None:
        try:
            return self._call(self._jobs.read_namespaced_job, name, self._namespace)
        except ApiException as error:
            if error.status == _NOT_FOUND:
                return None
            raise _unavailable(_told(error)) from None

    def _pods(self, handle: Handle) -> list[dict[str, Any]]:
        selector = f"job-name={handle.name},{_CONTROLLER}={handle.uid}"
        try:
            answer = self._call(self._core.list_namespaced_pod, self._namespace, label_selector=selector)
        except ApiException as error:
            raise _unavailable(_told(error)) from None
        return answer.get("items") or []

    def _keep_log(self, job: dict[str, Any], handle: Handle) -> None:
        """What the pods of an ended attempt said, into files beside those of child processes; best effort."""
        annotations = job["metadata"].get("annotations") or {}
        if self._log_folder is None or RUN not in annotations:
            return
        path = self._log_folder / f"{annotations[RUN]}-{annotations[ATTEMPT]}.log"
        with suppress(OSError, ApiException, DependencyUnavailable):
            texts = [self._log_of(pod["metadata"]["name"]) for pod in self._pods(handle)]
            self._log_folder.mkdir(parents=True, exist_ok=True)
            path.write_bytes(b"".join(texts))

    def _log_of(self, pod: str) -> bytes:
        read = self._core.read_namespaced_pod_log
        options: dict[str, Any] = {"container": CONTAINER, "limit_bytes": _LOG_BYTES, "_preload_content": False}
        return self._guarded(lambda: read(pod, self._namespace, _request_timeout=_TIMEOUT_S, **options)).data

    def _call(self, method: Callable[..., Any], *arguments: Any, **options: Any) -> dict[str, Any]:
        """The answer as plain JSON; ApiException where the server refuses, DependencyUnavailable where it is away."""
        answer = self._guarded(
            lambda: method(*arguments, _preload_content=False, _request_timeout=_TIMEOUT_S, **options)
        )
        return json.loads(answer.data)

    def _guarded(self, call: Callable[[], Any]) -> Any:
        try:
            return call()
        except ApiException as error:
            if error.status is None or error.status == 0 or error.status == 429 or error.status >= 500:
                raise _unavailable(_told(error)) from None
            raise
        except (HTTPError, OSError) as error:
            raise _unavailable(type(error).__name__) from None


def _has_ended(job: dict[str, Any]) -> bool:
    conditions = job.get("status", {}).get("conditions") or ()
    return any(item["type"] in ("Complete", "Failed") and item["status"] == "True" for item in conditions)


def _exit_code(pod: dict[str, Any]) -> int | None:
    statuses = pod.get("status", {}).get("containerStatuses") or ()
    codes = (status.get("state", {}).get("terminated", {}).get("exitCode") for status in statuses)
    return next((code for code in codes if code is not None), None)


def _told(error: ApiException) -> str:
    """What the API server says is wrong, without the headers that the exception's own text repeats."""
    try:
        message = json.loads(error.body or "")["message"]
    except (ValueError, TypeError, KeyError):
        message = error.reason
    return f"the Kubernetes API answers {error.status}: {message}"


def _unavailable(what: str) -> DependencyUnavailable:
    return DependencyUnavailable(f"Kubernetes: {what}", reason="KUBERNETES_UNAVAILABLE")
