"""Which launcher the settings ask for, wired."""

from __future__ import annotations

import os
from collections.abc import Sequence
from importlib.util import find_spec

from rekindle.errors import InvalidInput
from rekindle_servicekit.object_store import is_bucket

from rekindle_trainer.adapters.kubernetes_job import CA_FILE, JobSpec
from rekindle_trainer.adapters.kubernetes_status import Patience
from rekindle_trainer.adapters.subprocess import SubprocessLauncher
from rekindle_trainer.ports import Launcher
from rekindle_trainer.settings import TrainerSettings

#: Module that a training process runs.
PROCESS = "rekindle_trainer.process"


def make_launcher(settings: TrainerSettings, command: Sequence[str]) -> Launcher:
    """`command` starts with its interpreter, for which a Job takes the one in its image."""
    if settings.launcher == "kubernetes":
        return _kubernetes(settings, command)
    if PROCESS in command and find_spec("torch") is None:
        raise InvalidInput(
            "launcher is process and the training process is not installed: rekindle-trainer[process], or set launcher "
            "to kubernetes"
        )
    return SubprocessLauncher(
        command,
        settings.state_directory / "logs",
        threads=settings.threads or os.cpu_count() or 1,
        nice=settings.nice,
        stop_grace_s=settings.stop_grace_s,
        gpus=settings.process_gpus,
        hand_down={"REKINDLE_TRAINER_OBJECTS_": "REKINDLE_PROCESS_OBJECTS_"},
    )


def stops_children(settings: TrainerSettings) -> bool:
    """Whether training ends with this service: Jobs outlive it unless somebody wants otherwise."""
    chosen = settings.stop_children_on_exit
    return settings.launcher == "process" if chosen is None else chosen


def _kubernetes(settings: TrainerSettings, command: Sequence[str]) -> Launcher:
    if not settings.kubernetes_image:
        raise InvalidInput("launcher is kubernetes: set kubernetes_image to the trainer's image, by digest")
    try:
        from rekindle_trainer.adapters.kubernetes import KubernetesLauncher, connect
    except ModuleNotFoundError:
        raise InvalidInput(
            "launcher is kubernetes and its client is not installed: rekindle-trainer[kubernetes]"
        ) from None
    spec = JobSpec(
        image=settings.kubernetes_image,
        command=[settings.kubernetes_python, *command[1:]],
        environment=_environment(settings),
        installation_id=settings.installation_id or "",
        gpus=settings.kubernetes_gpus,
        nodes=settings.kubernetes_nodes,
        gpu_resource=settings.kubernetes_gpu_resource,
        cpu=settings.kubernetes_cpu,
        memory=settings.kubernetes_memory,
        scratch=settings.kubernetes_scratch,
        secret=settings.kubernetes_secret,
        secret_keys=settings.kubernetes_secret_keys,
        ca_config_map=settings.kubernetes_ca_config_map,
        claim=settings.kubernetes_claim,
        claim_path=str(settings.objects_directory.absolute()),
        service_account=settings.kubernetes_service_account,
        pull_secret=settings.kubernetes_pull_secret,
        node_selector=settings.kubernetes_node_selector,
        tolerations=settings.kubernetes_tolerations,
        runtime_class=settings.kubernetes_runtime_class,
        priority_class=settings.kubernetes_priority_class,
        queue=settings.kubernetes_queue,
        deadline_s=settings.kubernetes_deadline_s,
        ttl_s=settings.kubernetes_ttl_s,
        stop_grace_s=settings.stop_grace_s,
    )
    return KubernetesLauncher(
        connect(settings.kubernetes_config),
        settings.kubernetes_namespace,
        spec,
        patience=Patience(unschedulable_s=settings.kubernetes_unschedulable_s, broken_s=settings.kubernetes_broken_s),
        log_folder=settings.state_directory / "logs",
    )


def _environment(settings: TrainerSettings) -> dict[str, str]:
    """What the pod must know and is no secret; credentials come from the Secret."""
    store = {
        name: str(getattr(settings, name))
        for name in (
            "objects_endpoint",
            "objects_region",
            "objects_encryption",
            "objects_connect_timeout_s",
            "objects_read_timeout_s",
            "objects_total_timeout_s",
        )
    }
    environment = {f"REKINDLE_PROCESS_{name.upper()}": value for name, value in store.items() if is_bucket(settings)}
    environment["REKINDLE_PROCESS_OBJECTS_PATIENCE_S"] = str(settings.objects_patience_s)
    environment["REKINDLE_PROCESS_COLLECTIVE_TIMEOUT_S"] = str(settings.kubernetes_collective_timeout_s)
    if settings.kubernetes_ca_config_map:
        environment["REKINDLE_PROCESS_OBJECTS_CA_FILE"] = CA_FILE
    if settings.threads:
        environment["REKINDLE_TRAINER_THREADS"] = str(settings.threads)
    return environment
