"""Settings of the inference service, from the environment."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Literal

from pydantic import Field, SecretStr
from pydantic_settings import SettingsConfigDict
from rekindle_servicekit.listening import ListenSettings
from rekindle_servicekit.object_store import ObjectStoreSettings
from rekindle_servicekit.settings import INSTALLATION_ID


class Settings(ListenSettings, ObjectStoreSettings):
    """Built once, in `__main__`."""

    model_config = SettingsConfigDict(
        frozen=True, extra="forbid", env_prefix="REKINDLE_INFERENCE_", env_nested_delimiter="__"
    )

    address: str = Field("127.0.0.1:50052", description="where to listen: host:port or unix:path")
    health_address: str | None = Field(
        "127.0.0.1:50062", description="where health alone is answered in plain text; empty for nowhere"
    )
    database_url: str = Field(
        "sqlite:///inference.sqlite3", description="sqlite:///path/to/file or postgresql://host/database"
    )
    migrate_on_start: bool = Field(
        True, description="bring the schema up to date when starting; false where the command `migrate` does it before"
    )
    objects_directory: Path = Field(
        Path("objects"), description="directory of the object store where objects_url names none; as the trainer's"
    )
    installation_id: str = Field(
        "",
        pattern=INSTALLATION_ID,
        description="prefix of all object keys, for installations that share a store, the same as the trainer's; "
        "empty for none",
    )
    temporary_directory: Path = Field(
        Path(tempfile.gettempdir()), description="directory for files that are on their way in or out"
    )
    compute_threads: int = Field(
        2, ge=1, le=256, description="volumes parsed or measured at a time, and predicted at a time in each priority"
    )
    request_retention_days: float = Field(
        7.0, ge=1, le=3650, description="days for which a request that is sent again gets its first answer again"
    )
    segmentation_workers: int = Field(
        2, ge=1, le=256, description="durable segmentations of one priority that run at a time"
    )
    segmentation_claim_s: float = Field(
        20.0, gt=0, description="seconds after which a segmentation is taken over from a process that is gone"
    )
    segmentation_queue_most: int = Field(
        1000, ge=1, description="queued segmentations of one project and priority; more are refused for a while"
    )
    segmentation_time_to_live_s: int = Field(
        24 * 3600, ge=1, description="seconds that a segmentation is worth starting, where its request does not say"
    )
    segmentation_longest_time_to_live_s: int = Field(
        7 * 24 * 3600, ge=1, description="seconds that a request may say at most"
    )
    segmentation_batch_patience_s: int = Field(
        3600, ge=0, description="seconds after which a BATCH segmentation stands in line like a ROUTINE one"
    )
    transfer_threads: int = Field(16, ge=2, le=256, description="threads that move bytes and ask the database")
    engine_threads: int = Field(1, ge=1, le=256, description="threads that ONNX Runtime uses for one batch")
    engine_batch: int = Field(16, ge=1, le=256, description="slices that the engine is given at a time")
    engine_memory_bytes: int = Field(
        4 * 1024**3, ge=0, description="models are kept loaded up to this, by what their manifests say"
    )
    smoke_tolerance: float = Field(
        0.0,
        ge=0,
        le=0.1,
        description="least difference from a package's reference logits that is let pass, relative to the largest "
        "logit; above what the package itself allows only for engines of lower precision, such as TensorRT in fp16",
    )
    triton_address: str = Field("", description="host:port of Triton's gRPC service; empty for the embedded engine")
    triton_repository: str = Field(
        "",
        description="directory that Triton reads models from; empty for triton/ in the object store "
        "(Triton: --model-repository=s3://.../triton)",
    )
    triton_in_flight: int = Field(
        4, ge=1, le=64, description="batches of engine_batch slices under way at a time for each volume"
    )
    triton_shared_memory: Literal["auto", "on", "off"] = Field(
        "auto",
        description="whether batches lie in memory shared with Triton; auto: where its address is this machine's",
    )
    triton_instances: int | None = Field(
        None, ge=1, le=64, description="copies of a model on each device; empty leaves it to Triton"
    )
    triton_instance_kind: Literal["auto", "gpu", "cpu"] = Field("auto", description="where models run")
    triton_max_queue_delay_us: int | None = Field(
        2000, ge=0, description="microseconds that Triton may wait to gather a batch; none: no gathering"
    )
    triton_accelerator: Literal["none", "tensorrt"] = Field("none", description="what runs the graph on a GPU")
    triton_precision: Literal["fp32", "fp16"] = Field("fp32", description="of TensorRT")
    triton_ca: Path | None = Field(None, description="PEM file that Triton's certificate is checked with: TLS")
    triton_certificate: Path | None = Field(None, description="PEM file of this client's own certificate")
    triton_key: Path | None = Field(None, description="PEM file of its key")
    triton_access_key: SecretStr = Field(
        SecretStr(""), description="key=value of Triton's --grpc-restricted-protocol, where it restricts control calls"
    )
    triton_control_timeout_s: float = Field(10.0, gt=0, description="seconds that a control call may take")
    triton_load_timeout_s: float = Field(300.0, gt=0, description="seconds that loading a model may take")
    triton_load_wait_s: float = Field(30.0, gt=0, description="seconds that a prediction waits for its model")
    triton_infer_timeout_s: float = Field(60.0, gt=0, description="seconds that one batch may take")
    read_cache_bytes: int = Field(
        512 * 1024**2, ge=0, description="voxels of volumes read slice by slice that are kept decoded"
    )
    max_file_bytes: int = Field(2 * 1024**3, ge=1, description="largest file of a volume that is taken")
    max_open_uploads: int = Field(64, ge=1, description="uploads in pieces that one project may have begun")
    max_open_upload_bytes: int = Field(
        1024**4, ge=1, description="bytes that all uploads in pieces which are open may announce together"
    )
    upload_lifetime_s: float = Field(
        86_400.0, ge=1, description="seconds after which an upload in pieces that nobody goes on with is removed"
    )
    upload_sweep_s: float = Field(300.0, gt=0, description="seconds between looks for such uploads")
    max_model_bytes: int = Field(2 * 1024**3, ge=1, description="largest ONNX file that is taken")
    max_voxels: int = Field(2**28, ge=1, description="largest volume that is taken")
    parser_memory_bytes: int = Field(
        2 * 1024**3, ge=64 * 1024**2, description="memory that reading one foreign file may take"
    )
    parser_cpu_s: int = Field(
        30,
        ge=1,
        description="processor time that reading one foreign file may take; DICOM archives get 0.25 s more per MiB",
    )
    parser_wall_s: float = Field(
        60.0, gt=0, description="seconds that reading one foreign file may take; DICOM archives get 0.5 s more per MiB"
    )
