"""``python -m rekindle_trainer``: the training service, wired from its settings."""

from __future__ import annotations

import asyncio
import logging
import sys
from collections.abc import Sequence
from dataclasses import replace
from functools import partial

from rekindle.api.trainer.v1 import trainer_pb2, trainer_pb2_grpc
from rekindle_servicekit import database
from rekindle_servicekit.admin import serve_admin
from rekindle_servicekit.arguments import run_command
from rekindle_servicekit.bell import Bell
from rekindle_servicekit.info import ServerFacts, database_capabilities, serve_info
from rekindle_servicekit.listening import make_authenticator, server_options
from rekindle_servicekit.metrics import StateCollector
from rekindle_servicekit.object_store import open_store
from rekindle_servicekit.objects import Objects, PrefixedObjects
from rekindle_servicekit.retention import Retention
from rekindle_servicekit.server import MAX_TRAINER_MESSAGE_BYTES, Server, serve
from rekindle_servicekit.workers import Workers

from rekindle_trainer.adapters.launchers import PROCESS, make_launcher, stops_children
from rekindle_trainer.adapters.prometheus import run_metrics
from rekindle_trainer.domain.presets import CATALOGUE
from rekindle_trainer.domain.retry import RetryPolicy
from rekindle_trainer.grpc.servicer import Backend, TrainerServicer
from rekindle_trainer.settings import TrainerSettings
from rekindle_trainer.state import MIGRATIONS, State
from rekindle_trainer.state.archive import project_archive
from rekindle_trainer.supervisor import Supervisor, supervise
from rekindle_trainer.usecases.verification import verify

SERVICE_NAME: str = trainer_pb2.DESCRIPTOR.services_by_name["TrainerService"].full_name
_log = logging.getLogger(__name__)
_WATCH_INTERVAL_S = 0.25
#: Names of the launchers in `GetServerInfo`.
_LAUNCHERS = {"process": "subprocess", "kubernetes": "kubernetes"}


def main(arguments: Sequence[str] | None = None, *, command: Sequence[str] | None = None) -> int:
    """Serve until a signal, or migrate; `command` replaces the training process. The exit code."""
    return run_command(
        "trainer",
        "The training service.",
        TrainerSettings,
        serve=lambda settings: asyncio.run(run_service(settings, command or training_command(settings))),
        migrate=_migrate,
        arguments=arguments,
    )


def _migrate(settings: TrainerSettings) -> None:
    engine = database.make_engine(settings.effective_database_url())
    try:
        database.migrate(engine, MIGRATIONS)
    finally:
        engine.dispose()


def training_command(settings: TrainerSettings) -> list[str]:
    """The training process, in the interpreter and with the objects of this service."""
    # Where a bucket is and who asks for it comes by the environment: a command line is for everybody to read.
    location = settings.objects_url or str(settings.objects_directory.absolute())
    process = [sys.executable, "-m", PROCESS, "--objects", location]
    if settings.installation_id:
        process += ["--prefix", settings.installation_id]
    return [*process, "--run", "{run_id}", "--attempt", "{attempt}"]


async def run_service(settings: TrainerSettings, command: Sequence[str]) -> None:
    """Wire everything and serve."""
    engine = database.make_engine(settings.effective_database_url())
    workers, supervision = Workers(), Workers(max_threads=1, name="supervisor")
    try:
        database.prepare_schema(engine, MIGRATIONS, migrates=settings.migrate_on_start)
        state, objects = State(engine), open_objects(settings)
        launcher = make_launcher(settings, command)
        supervisor = Supervisor(
            state=state,
            objects=objects,
            launcher=launcher,
            policy=RetryPolicy(max_retries=settings.max_retries),
            max_concurrent_runs=settings.max_concurrent_runs,
            claim_timeout_s=settings.claim_timeout_s,
        )
        options = replace(server_options(settings), max_message_bytes=MAX_TRAINER_MESSAGE_BYTES)
        server = Server(options, make_authenticator(settings))
        server.metrics.registry.register(StateCollector(partial(run_metrics, state)))
        servicer = TrainerServicer(
            Backend(
                state=state,
                objects=objects,
                catalogue=CATALOGUE,
                advance=supervisor.advance,
                gpus=launcher.gpus,
                workers=workers,
                bell=Bell(),
                stopping=server.stopping,
                # Training processes and other supervisors ring no bell.
                watch_interval_s=_WATCH_INTERVAL_S,
            )
        )
        server.add(SERVICE_NAME, servicer, trainer_pb2_grpc.add_TrainerServiceServicer_to_server)
        serve_info(server, _facts(settings))
        archive = project_archive(engine, objects)
        serve_admin(server, workers, verify=partial(verify, state, objects), archive=archive)
        supervision_loop = partial(
            supervise,
            supervisor,
            supervision,
            interval_s=settings.poll_interval_s,
            stop_children_on_exit=stops_children(settings),
        )
        retention = Retention(engine, workers, days=settings.request_retention_days)
        await serve(server, [supervision_loop, retention])
    finally:
        supervision.close()
        workers.close()
        engine.dispose()


def open_objects(settings: TrainerSettings) -> Objects:
    """The object store, or the part of it that belongs to this installation."""
    objects = open_store(settings, settings.objects_directory)
    return PrefixedObjects(objects, settings.installation_id) if settings.installation_id else objects


def _facts(settings: TrainerSettings) -> ServerFacts:
    return ServerFacts(
        service="trainer",
        capabilities=database_capabilities(settings.effective_database_url()) | {_LAUNCHERS[settings.launcher]},
        limits={
            "max_concurrent_runs": settings.max_concurrent_runs,
            "max_retries": settings.max_retries,
            "max_message_bytes": MAX_TRAINER_MESSAGE_BYTES,
        },
        installation_id=settings.installation_id,
    )


if __name__ == "__main__":
    sys.exit(main())
