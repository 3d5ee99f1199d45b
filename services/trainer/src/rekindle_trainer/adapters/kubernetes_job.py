"""The Job of one attempt, as the API takes it: names, pod, restrictions, what happens when it ends."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

#: Labels and annotations by which Jobs and their pods are told apart and found again.
PREFIX: Final = "rekindle.dev"
RUN, ATTEMPT, INSTALLATION = f"{PREFIX}/run", f"{PREFIX}/attempt", f"{PREFIX}/installation"
QUEUE: Final = "kueue.x-k8s.io/queue-name"
CONTAINER: Final = "training"
CA_FILE: Final = "/etc/rekindle/authorities/ca.crt"
_USER: Final = 10001
_PORT: Final = 29400
#: Stands for an installation that was given no id.
_DEFAULT: Final = "default"
Manifest = dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class JobSpec:
    """What all Jobs of an installation have in common; plain values, from settings."""

    image: str
    #: Arguments ``{run_id}`` and ``{attempt}`` stand for the attempt's own; the interpreter comes first.
    command: Sequence[str]
    #: Set in the pod, and none of it secret.
    environment: Mapping[str, str] = field(default_factory=dict)
    installation_id: str = ""
    gpus: int = 1
    nodes: int = 1
    gpu_resource: str = "nvidia.com/gpu"
    cpu: str = "4"
    memory: str = "16Gi"
    scratch: str = "20Gi"
    #: Names of objects in the same namespace; empty for none.
    secret: str = ""
    #: Variable -> key of the Secret; empty: each key is the variable of its name.
    secret_keys: Mapping[str, str] = field(default_factory=dict)
    ca_config_map: str = ""
    claim: str = ""
    #: Where the claim is mounted.
    claim_path: str = ""
    service_account: str = ""
    pull_secret: str = ""
    node_selector: Mapping[str, str] = field(default_factory=dict)
    tolerations: Sequence[Mapping[str, Any]] = ()
    runtime_class: str = ""
    priority_class: str = ""
    queue: str = ""
    deadline_s: int = 172_800
    ttl_s: int = 86_400
    stop_grace_s: float = 20.0

    @property
    def is_distributed(self) -> bool:
        return self.gpus > 1 or self.nodes > 1


def job_name(installation_id: str, run_id: str, attempt: int) -> str:
    """The same for the same attempt whoever asks and however often; a DNS label, whatever the ids are."""
    digest = hashlib.sha256(f"{installation_id}/{run_id}".encode()).hexdigest()[:20]
    return f"rekindle-run-{digest}-{attempt}"


def installation_selector(installation_id: str) -> str:
    """Selects the Jobs and pods of one installation, of any run."""
    return f"{INSTALLATION}={installation_id or _DEFAULT}"


def job_manifest(spec: JobSpec, run_id: str, attempt: int) -> Manifest:
    """The Job. Evicted pods are replaced and count for nothing; an error of the process itself ends it at once."""
    name = job_name(spec.installation_id, run_id, attempt)
    labels = _labels(spec, run_id, attempt)
    body: Manifest = {
        "parallelism": spec.nodes,
        "completions": spec.nodes,
        "backoffLimit": 0,
        "activeDeadlineSeconds": spec.deadline_s,
        "ttlSecondsAfterFinished": spec.ttl_s,
        # Two pods of one attempt must not overlap.
        "podReplacementPolicy": "Failed",
        "podFailurePolicy": {
            "rules": [
                {"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]},
                {"action": "FailJob", "onExitCodes": {"operator": "NotIn", "values": [0]}},
            ]
        },
        "template": {"metadata": {"labels": labels}, "spec": _pod(spec, name, run_id, attempt)},
    }
    if spec.nodes > 1:
        body["completionMode"] = "Indexed"
    if spec.queue:
        # Kueue lets it go when there is room.
        body["suspend"] = True
        labels = {**labels, QUEUE: spec.queue}
    annotations = {RUN: run_id, ATTEMPT: str(attempt)}
    metadata = {"name": name, "labels": labels, "annotations": annotations}
    return {"apiVersion": "batch/v1", "kind": "Job", "metadata": metadata, "spec": body}


def service_manifest(spec: JobSpec, run_id: str, attempt: int, owner_uid: str) -> Manifest:
    """The headless service by which the pods of several nodes find the first one; goes with its Job."""
    name = job_name(spec.installation_id, run_id, attempt)
    owner = {"apiVersion": "batch/v1", "kind": "Job", "name": name, "uid": owner_uid}
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": name, "labels": _labels(spec, run_id, attempt), "ownerReferences": [owner]},
        "spec": {
            "clusterIP": "None",
            "publishNotReadyAddresses": True,
            "selector": {"job-name": name},
            "ports": [{"name": "rendezvous", "port": _PORT}],
        },
    }


def _labels(spec: JobSpec, run_id: str, attempt: int) -> dict[str, str]:
    # A run id may be longer than a label's value; its digest is in the name, the id itself in an annotation.
    return {
        "app.kubernetes.io/name": "rekindle-training",
        "app.kubernetes.io/part-of": "rekindle",
        INSTALLATION: spec.installation_id or _DEFAULT,
        RUN: hashlib.sha256(run_id.encode()).hexdigest()[:20],
        ATTEMPT: str(attempt),
    }


def _pod(spec: JobSpec, name: str, run_id: str, attempt: int) -> Manifest:
    pod: Manifest = {
        "restartPolicy": "Never",
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "terminationGracePeriodSeconds": max(1, round(spec.stop_grace_s)),
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": _USER,
            "runAsGroup": _USER,
            "fsGroup": _USER,
            "fsGroupChangePolicy": "OnRootMismatch",
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "containers": [_container(spec, name, run_id, attempt)],
        "volumes": _volumes(spec),
        "nodeSelector": dict(spec.node_selector),
        "tolerations": [dict(toleration) for toleration in spec.tolerations],
    }
    optional = {
        "serviceAccountName": spec.service_account,
        "runtimeClassName": spec.runtime_class,
        "priorityClassName": spec.priority_class,
        "subdomain": name if spec.nodes > 1 else "",
        "imagePullSecrets": [{"name": spec.pull_secret}] if spec.pull_secret else "",
    }
    return pod | {key: value for key, value in optional.items() if value}


def _container(spec: JobSpec, name: str, run_id: str, attempt: int) -> Manifest:
    resources = {"cpu": spec.cpu, "memory": spec.memory}
    if spec.gpus:
        resources[spec.gpu_resource] = str(spec.gpus)
    container: Manifest = {
        "name": CONTAINER,
        "image": spec.image,
        "command": _command(spec, name, run_id, attempt),
        "env": [*({"name": key, "value": value} for key, value in _environment(spec).items()), *_secrets(spec)],
        "resources": {"requests": dict(resources), "limits": dict(resources)},
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        },
        "volumeMounts": _mounts(spec),
    }
    if spec.secret and not spec.secret_keys:
        container["envFrom"] = [{"secretRef": {"name": spec.secret}}]
    return container


def _secrets(spec: JobSpec) -> list[Manifest]:
    """Credentials by reference: no value of theirs is part of a Job."""
    return [
        {"name": variable, "valueFrom": {"secretKeyRef": {"name": spec.secret, "key": key}}}
        for variable, key in spec.secret_keys.items()
        if spec.secret
    ]


def _command(spec: JobSpec, name: str, run_id: str, attempt: int) -> list[str]:
    values = {"{run_id}": run_id, "{attempt}": str(attempt)}
    command = [values.get(part, part) for part in spec.command]
    if not spec.is_distributed:
        return command
    interpreter, *process = command
    rendezvous = ["--standalone"]
    if spec.nodes > 1:
        # Kubernetes puts the index of this pod in.
        rendezvous = [f"--nnodes={spec.nodes}", "--node-rank=$(JOB_COMPLETION_INDEX)"]
        rendezvous += [f"--master-addr={name}-0.{name}", f"--master-port={_PORT}"]
    # Its processes get the pod's whole grace for a checkpoint.
    options = [f"--nproc-per-node={max(1, spec.gpus)}", f"--shutdown-timeout={max(1, round(spec.stop_grace_s))}"]
    return [interpreter, "-m", "rekindle_trainer.process.torchrun", *rendezvous, *options, *process]


def _environment(spec: JobSpec) -> dict[str, str]:
    return {
        "PYTHONUNBUFFERED": "1",
        "PYTHONDONTWRITEBYTECODE": "1",
        "HOME": "/tmp",
        "OMP_WAIT_POLICY": "PASSIVE",
        **spec.environment,
    }


def _volumes(spec: JobSpec) -> list[Manifest]:
    volumes: list[Manifest] = [
        {"name": "tmp", "emptyDir": {"sizeLimit": spec.scratch}},
        {"name": "shm", "emptyDir": {"medium": "Memory"}},
    ]
    if spec.ca_config_map:
        volumes.append({"name": "authorities", "configMap": {"name": spec.ca_config_map}})
    if spec.claim:
        volumes.append({"name": "objects", "persistentVolumeClaim": {"claimName": spec.claim}})
    return volumes


def _mounts(spec: JobSpec) -> list[Manifest]:
    mounts: list[Manifest] = [{"name": "tmp", "mountPath": "/tmp"}, {"name": "shm", "mountPath": "/dev/shm"}]
    if spec.ca_config_map:
        mounts.append({"name": "authorities", "mountPath": str(Path(CA_FILE).parent), "readOnly": True})
    if spec.claim:
        mounts.append({"name": "objects", "mountPath": spec.claim_path})
    return mounts
