"""Settings of training in Kubernetes Jobs."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from pydantic import Field, field_validator
from rekindle_servicekit.listening import ListenSettings

_DIGEST = re.compile(r".+@sha256:[0-9a-f]{64}")


class KubernetesSettings(ListenSettings):
    """Only read where the launcher is ``kubernetes``. Structured values are JSON."""

    kubernetes_namespace: str = Field("default", description="namespace of the Jobs")
    kubernetes_image: str = Field("", description="image of the trainer, by digest: registry/name@sha256:...")
    kubernetes_config: Path | None = Field(
        None, description="kubeconfig file; empty inside the cluster, by the pod's service account"
    )
    kubernetes_python: str = Field("/opt/rekindle/bin/python", description="the interpreter in that image")
    kubernetes_gpus: int = Field(1, ge=0, description="GPUs of a pod; of several each trains on its part of a batch")
    kubernetes_nodes: int = Field(1, ge=1, le=64, description="pods of a run, which train together")
    kubernetes_collective_timeout_s: float = Field(
        1800.0,
        gt=0,
        description="seconds that the processes of a run wait for each other before the attempt ends; above "
        "objects_patience_s",
    )
    kubernetes_gpu_resource: str = Field("nvidia.com/gpu", description="name of the resource that a GPU is")
    kubernetes_cpu: str = Field("4", description="CPUs of a pod")
    kubernetes_memory: str = Field("16Gi", description="memory of a pod; beyond it the process is killed")
    kubernetes_scratch: str = Field("20Gi", description="local disk of a pod, for temporary files")
    kubernetes_secret: str = Field(
        "", description="Secret whose keys become environment variables of the pod: the object store's credentials"
    )
    kubernetes_secret_keys: dict[str, str] = Field(
        default_factory=dict,
        description="variable of the pod -> key of that Secret; empty: each key is the variable of its name",
    )
    kubernetes_ca_config_map: str = Field(
        "", description="ConfigMap whose ca.crt holds the authorities of the object store's certificate"
    )
    kubernetes_claim: str = Field(
        "", description="PersistentVolumeClaim of the object store's directory, where the store is one"
    )
    kubernetes_service_account: str = Field("", description="service account of the pods; its token is not mounted")
    kubernetes_pull_secret: str = Field("", description="Secret that the image is pulled with")
    kubernetes_node_selector: dict[str, str] = Field(default_factory=dict, description="labels of the nodes")
    kubernetes_tolerations: list[dict[str, Any]] = Field(default_factory=list, description="taints to tolerate")
    kubernetes_runtime_class: str = Field("", description="runtime class, such as nvidia")
    kubernetes_priority_class: str = Field("", description="priority class")
    kubernetes_queue: str = Field(
        "", description="local queue of Kueue; Jobs are then made suspended and it starts them"
    )
    kubernetes_deadline_s: int = Field(172_800, ge=60, description="seconds after which a Job is ended for good")
    kubernetes_ttl_s: int = Field(86_400, ge=0, description="seconds that a Job stays to be looked at after its end")
    kubernetes_unschedulable_s: float = Field(
        3600.0, ge=0, description="seconds that a pod may wait for a node before its run fails; 0: for ever"
    )
    kubernetes_broken_s: float = Field(
        300.0, ge=0, description="seconds that a pod may fail to start (image, secret, volume) before its run fails"
    )

    @field_validator("kubernetes_image")
    @classmethod
    def _by_digest(cls, value: str) -> str:
        if value and not _DIGEST.fullmatch(value):
            raise ValueError(
                "must name the image by digest (name@sha256:...), so that every attempt runs the same code"
            )
        return value
