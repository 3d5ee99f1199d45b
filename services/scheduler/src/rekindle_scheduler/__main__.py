"""Starts the scheduler: ``python -m rekindle_scheduler``."""

from __future__ import annotations

import asyncio
import sys
from functools import partial

from rekindle.api.scheduler.v1 import scheduler_pb2
from rekindle.api.scheduler.v1.scheduler_pb2_grpc import add_SchedulerServiceServicer_to_server
from rekindle.credentials import Access
from rekindle_servicekit.admin import serve_admin
from rekindle_servicekit.arguments import run_command
from rekindle_servicekit.bell import Bell
from rekindle_servicekit.info import ServerFacts, database_capabilities, serve_info
from rekindle_servicekit.listening import make_authenticator, server_options
from rekindle_servicekit.metrics import StateCollector
from rekindle_servicekit.retention import Retention
from rekindle_servicekit.server import MAX_TRAINER_MESSAGE_BYTES, Server, serve
from rekindle_servicekit.workers import Workers

from rekindle_scheduler.actions.services import Services
from rekindle_scheduler.adapters.channels import open_channel
from rekindle_scheduler.adapters.inference import GrpcInference
from rekindle_scheduler.adapters.prometheus import SchedulerMetrics, queue_metrics
from rekindle_scheduler.adapters.trainer import GrpcTrainer
from rekindle_scheduler.grpc.base import Backend
from rekindle_scheduler.grpc.cases import CaseHandlers
from rekindle_scheduler.grpc.drafts import DraftHandlers
from rekindle_scheduler.grpc.leases import LeaseHandlers
from rekindle_scheduler.grpc.projects import ProjectHandlers
from rekindle_scheduler.grpc.purges import PurgeHandlers
from rekindle_scheduler.grpc.rounds import RoundHandlers
from rekindle_scheduler.grpc.sessions import SessionHandlers
from rekindle_scheduler.grpc.submissions import SubmissionHandlers
from rekindle_scheduler.publisher import Publisher
from rekindle_scheduler.purger import Purger
from rekindle_scheduler.reconciler import Reconciler
from rekindle_scheduler.settings import Settings
from rekindle_scheduler.state import open_state
from rekindle_scheduler.state.archive import project_archive
from rekindle_scheduler.state.inventory import Inventory
from rekindle_scheduler.usecases.verification import Verification

SERVICE_NAME: str = scheduler_pb2.DESCRIPTOR.services_by_name["SchedulerService"].full_name


class SchedulerServicer(
    ProjectHandlers,
    CaseHandlers,
    LeaseHandlers,
    SubmissionHandlers,
    DraftHandlers,
    SessionHandlers,
    RoundHandlers,
    PurgeHandlers,
):
    """Every method of SchedulerService."""


def main() -> int:
    """Serve until a signal, or migrate; the exit code."""
    return run_command(
        "scheduler",
        "The scheduler.",
        Settings,
        serve=lambda settings: asyncio.run(_serve(settings)),
        migrate=lambda settings: open_state(settings.database_url).close(),
    )


async def _serve(settings: Settings) -> None:
    """Wire everything, run it, and put it away."""
    server = Server(server_options(settings), make_authenticator(settings))
    access = _access(settings)
    metrics = SchedulerMetrics(server.metrics.registry)
    server.metrics.on_error(metrics.call_refused)
    state = open_state(settings.database_url, migrates=settings.migrate_on_start, observe=metrics.observe)
    server.metrics.registry.register(StateCollector(partial(queue_metrics, state)))
    bell = Bell()
    workers = Workers(max_threads=settings.max_threads, name="call")
    # Threads of their own: a pass may wait for minutes, and no call should wait for a pass.
    pass_workers = Workers(max_threads=settings.max_threads, name="reconcile")
    # A channel of its own for the calls of clients: those of passes are cut off first when the service ends.
    calls = open_channel(settings.inference_address, access)
    inference = open_channel(settings.inference_address, access)
    trainer = open_channel(settings.trainer_address, access, max_message_bytes=MAX_TRAINER_MESSAGE_BYTES)

    def cut_off() -> None:
        inference.close()
        trainer.close()

    backend = Backend(state=state, inference=GrpcInference(calls), bell=bell, workers=workers, stopping=server.stopping)
    services = Services(
        state=state,
        inference=GrpcInference(inference),
        trainer=GrpcTrainer(trainer),
        prediction_batch=settings.prediction_batch,
    )
    purger = Purger(
        services, bell, pass_workers, interval_s=settings.backoff_max_s, retry_s=settings.reconcile_interval_s
    )
    reconciler = Reconciler(
        services,
        bell,
        pass_workers,
        interval_s=settings.reconcile_interval_s,
        backoff_max_s=settings.backoff_max_s,
        on_stop=cut_off,
    )
    publisher = Publisher(
        state,
        services.inference,
        bell,
        pass_workers,
        interval_s=settings.reconcile_interval_s,
        backoff_max_s=settings.backoff_max_s,
    )
    server.add(SERVICE_NAME, SchedulerServicer(backend), add_SchedulerServiceServicer_to_server)
    serve_info(server, _facts(settings))
    verification = Verification(Inventory(state.engine), backend.inference, GrpcTrainer(trainer))
    serve_admin(server, workers, verify=verification, archive=project_archive(state.engine))
    try:
        retention = Retention(state.engine, workers, days=settings.request_retention_days)
        await serve(server, [reconciler.run, purger.run, publisher.run, retention])
    finally:
        cut_off()
        calls.close()
        workers.close()
        pass_workers.close()
        state.close()


def _facts(settings: Settings) -> ServerFacts:
    return ServerFacts(
        service="scheduler",
        capabilities=database_capabilities(settings.database_url),
        limits={"max_prediction_batch": settings.prediction_batch},
        installation_id=settings.installation_id,
    )


def _access(settings: Settings) -> Access | None:
    """How the other services are called; None for plain text without a token."""
    access = Access(
        tls=settings.peer_tls,
        ca=settings.peer_ca,
        certificate=settings.peer_certificate,
        key=settings.peer_key,
        token_file=settings.peer_token_file,
        insecure=settings.insecure,
    )
    return access if access.is_encrypted or access.has_token else None


if __name__ == "__main__":
    sys.exit(main())
