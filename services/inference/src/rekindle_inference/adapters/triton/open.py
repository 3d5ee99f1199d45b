"""The Triton engine, put together from settings."""

from __future__ import annotations

import ipaddress
import threading

from rekindle.errors import InvalidInput
from rekindle_servicekit.objects import Objects

from rekindle_inference.adapters.triton.batches import Batches
from rekindle_inference.adapters.triton.client import Connection, TritonClient
from rekindle_inference.adapters.triton.config import ModelOptions
from rekindle_inference.adapters.triton.engine import TritonEngine
from rekindle_inference.adapters.triton.memory import SharedMemory
from rekindle_inference.adapters.triton.names import DEFAULT_INSTALLATION
from rekindle_inference.adapters.triton.repository import ModelRepository
from rekindle_inference.settings import Settings


def open_triton(settings: Settings, packages: Objects, repository: Objects) -> TritonEngine:
    """`packages` is the object store, `repository` what Triton reads. Triton itself is asked only once it is needed.

    InvalidInput for certificates that cannot be read.
    """
    client = _open_client(settings)
    shared = _shares_memory(settings) and SharedMemory.is_possible()
    engine = TritonEngine(
        client,
        ModelRepository(packages, repository, model_options(settings)),
        Batches(client, SharedMemory(client) if shared else None),
        installation=settings.installation_id or DEFAULT_INSTALLATION,
        max_batch=settings.engine_batch,
        in_flight=settings.triton_in_flight,
        memory_bytes=settings.engine_memory_bytes,
        load_wait_s=settings.triton_load_wait_s,
    )
    # Beside the start of the service, which does not wait for a store that is away.
    threading.Thread(target=engine.prepare, name="model-repository", daemon=True).start()
    return engine


def model_options(settings: Settings) -> ModelOptions:
    return ModelOptions(
        max_batch=settings.engine_batch,
        instances=settings.triton_instances,
        kind=settings.triton_instance_kind,
        max_queue_delay_us=settings.triton_max_queue_delay_us,
        accelerator=settings.triton_accelerator,
        precision=settings.triton_precision,
    )


def _open_client(settings: Settings) -> TritonClient:
    connection = Connection(
        address=settings.triton_address,
        ca=settings.triton_ca,
        certificate=settings.triton_certificate,
        key=settings.triton_key,
        access_key=settings.triton_access_key.get_secret_value(),
        control_timeout_s=settings.triton_control_timeout_s,
        load_timeout_s=settings.triton_load_timeout_s,
        infer_timeout_s=settings.triton_infer_timeout_s,
    )
    try:
        return TritonClient(connection)
    except OSError as error:
        raise InvalidInput(
            f"a certificate for Triton cannot be read: {error.strerror}; check triton_ca, triton_certificate and "
            "triton_key",
            reason="INVALID_SETTING",
        ) from None


def _shares_memory(settings: Settings) -> bool:
    if settings.triton_shared_memory == "auto":
        return is_loopback(settings.triton_address)
    return settings.triton_shared_memory == "on"


def is_loopback(address: str) -> bool:
    """Whether host:port is this machine by its loopback interface; no name is looked up."""
    host = address.rpartition(":")[0].strip("[]")
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
