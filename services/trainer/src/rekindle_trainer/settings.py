"""Settings of the trainer."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, field_validator
from pydantic_settings import SettingsConfigDict
from rekindle_servicekit.listening import ListenSettings
from rekindle_servicekit.object_store import ObjectStoreSettings
from rekindle_servicekit.settings import INSTALLATION_ID

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


class TrainerSettings(KubernetesSettings, ObjectStoreSettings):
    """Read from ``REKINDLE_TRAINER_*``."""

    model_config = SettingsConfigDict(env_prefix="REKINDLE_TRAINER_")

    address: str = Field("127.0.0.1:50053", description="host:port or unix:path to listen on; port 0 takes a free one")

    state_directory: Path = Field(
        Path("var/trainer"), description="folder of the SQLite database and of the runs' logs"
    )
    database_url: str = Field("", description="sqlite:///path or postgresql://...; empty for a file in state_directory")
    migrate_on_start: bool = Field(
        True, description="bring the schema up to date when starting; false where the command `migrate` does it before"
    )
    objects_directory: Path = Field(
        Path("var/objects"),
        description="folder of the object store where objects_url names none, shared with inference",
    )
    objects_patience_s: float = Field(
        900.0, ge=0, description="seconds that a training process waits for an object store that is away"
    )

    installation_id: str = Field(
        "", pattern=INSTALLATION_ID, description="prefix of all object keys, the same as inference's; empty for none"
    )

    max_concurrent_runs: int = Field(1, ge=1, description="training processes at a time; further runs are queued")
    threads: int = Field(0, ge=0, description="CPU threads of a training process; 0 for one per core")
    nice: int = Field(5, ge=0, le=19, description="how much a training process gives way to others")
    process_gpus: int = Field(
        0, ge=0, description="GPUs that a child process trains on, counted against the projects' budgets of GPU seconds"
    )
    max_retries: int = Field(3, ge=0, description="times that a run whose process died is tried again")
    request_retention_days: float = Field(
        7.0, ge=1, le=3650, description="days for which a request that is sent again gets its first answer again"
    )
    poll_interval_s: float = Field(0.5, gt=0, description="seconds between two looks at the runs")
    claim_timeout_s: float = Field(30.0, gt=0, description="seconds after which a claim without a process is given up")
    stop_grace_s: float = Field(20.0, ge=0, description="seconds that a training process has for its last checkpoint")
    stop_children_on_exit: bool | None = Field(
        None,
        description="stop training processes with the service, so that their runs go on at the next start; empty: "
        "child processes are stopped and Jobs go on",
    )
    launcher: Literal["process", "kubernetes"] = Field(
        "process", description="what a training process is: a child process here, or a Job of Kubernetes"
    )

    def effective_database_url(self) -> str:
        return self.database_url or f"sqlite:///{self.state_directory.absolute() / 'trainer.sqlite'}"
