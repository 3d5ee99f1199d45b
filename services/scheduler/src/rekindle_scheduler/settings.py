"""Settings of the scheduler, from the environment."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field
from pydantic_settings import SettingsConfigDict
from rekindle_servicekit.listening import ListenSettings
from rekindle_servicekit.settings import INSTALLATION_ID


class Settings(ListenSettings):
    """Built once, in `__main__`."""

    model_config = SettingsConfigDict(
        frozen=True, extra="forbid", env_prefix="REKINDLE_SCHEDULER_", env_nested_delimiter="__"
    )

    address: str = Field("127.0.0.1:50051", description="where to listen: host:port or unix:path")
    health_address: str | None = Field(
        "127.0.0.1:50061", description="where health alone is answered in plain text; empty for nowhere"
    )
    database_url: str = Field(
        "sqlite:///scheduler.sqlite3", description="sqlite:///path/to/file or postgresql://host/database"
    )
    migrate_on_start: bool = Field(
        True, description="bring the schema up to date when starting; false where the command `migrate` does it before"
    )
    installation_id: str = Field(
        "", pattern=INSTALLATION_ID, description="name of this installation, the same as inference's and the trainer's"
    )
    inference_address: str = Field("127.0.0.1:50052", description="the inference service, host:port")
    trainer_address: str = Field("127.0.0.1:50053", description="the trainer service, host:port")
    reconcile_interval_s: float = Field(
        1.0, gt=0, description="seconds between two looks at a project that waits for something outside"
    )
    backoff_max_s: float = Field(
        30.0, gt=0, description="longest pause before a service that cannot be reached is tried again"
    )
    request_retention_days: float = Field(
        7.0, ge=1, le=3650, description="days for which a request that is sent again gets its first answer again"
    )
    prediction_batch: int = Field(4, ge=1, le=256, description="cases that are predicted in one call")
    max_threads: int = Field(16, ge=2, description="threads for database work and calls of other services")
    peer_tls: bool = Field(
        False, description="call inference and the trainer over TLS; peer_ca and peer_certificate imply it"
    )
    peer_ca: Path | None = Field(
        None, description="PEM file of the authorities of the other services' certificates; empty for public ones"
    )
    peer_certificate: Path | None = Field(None, description="PEM file of the certificate to show to them")
    peer_key: Path | None = Field(None, description="PEM file of that certificate's key")
    peer_token_file: Path | None = Field(None, description="file of the token to show to them, of role service")
