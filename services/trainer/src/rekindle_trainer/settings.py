"""Settings of the trainer."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field
from pydantic_settings import SettingsConfigDict
from rekindle_servicekit.object_store import ObjectStoreSettings
from rekindle_servicekit.settings import INSTALLATION_ID

from rekindle_trainer.kubernetes_settings import KubernetesSettings


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
