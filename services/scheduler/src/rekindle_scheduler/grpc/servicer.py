"""The scheduler's servicer, put together from its parts."""

from __future__ import annotations

from rekindle.api.scheduler.v1 import scheduler_pb2

from rekindle_scheduler.grpc.annotation import AnnotationHandlers
from rekindle_scheduler.grpc.cases import CaseHandlers
from rekindle_scheduler.grpc.leases import LeaseHandlers
from rekindle_scheduler.grpc.projects import ProjectHandlers
from rekindle_scheduler.grpc.purges import PurgeHandlers
from rekindle_scheduler.grpc.rounds import RoundHandlers

SERVICE_NAME: str = scheduler_pb2.DESCRIPTOR.services_by_name["SchedulerService"].full_name


class SchedulerServicer(ProjectHandlers, CaseHandlers, LeaseHandlers, AnnotationHandlers, RoundHandlers, PurgeHandlers):
    """Every method of SchedulerService."""
