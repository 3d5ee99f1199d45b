"""The stubs of the three services and the caller that handles share."""

from __future__ import annotations

from rekindle._call import Caller, Credentials, open_channel
from rekindle.api.common.v1.admin_pb2_grpc import AdminServiceStub
from rekindle.api.common.v1.info_pb2_grpc import InfoServiceStub
from rekindle.api.inference.v1.inference_pb2_grpc import InferenceServiceStub
from rekindle.api.inference.v1.segmentations_pb2_grpc import SegmentationServiceStub
from rekindle.api.inference.v1.volumes_pb2_grpc import VolumeServiceStub
from rekindle.api.scheduler.v1.scheduler_pb2_grpc import SchedulerServiceStub
from rekindle.api.trainer.v1.trainer_pb2_grpc import TrainerServiceStub


class Services:
    """One channel per service; opened at once, connected at the first call."""

    def __init__(
        self, scheduler: str, inference: str, trainer: str, credentials: Credentials | None, caller: Caller
    ) -> None:
        self.addresses = {"scheduler": scheduler, "inference": inference, "trainer": trainer}
        self.caller = caller
        caller.addresses.update(self.addresses)
        self.channels = {name: open_channel(address, credentials) for name, address in self.addresses.items()}
        self.scheduler = SchedulerServiceStub(self.channels["scheduler"])
        self.volumes = VolumeServiceStub(self.channels["inference"])
        self.inference = InferenceServiceStub(self.channels["inference"])
        self.segmentations = SegmentationServiceStub(self.channels["inference"])
        self.trainer = TrainerServiceStub(self.channels["trainer"])
        #: What every service answers, by the service asked.
        self.admin = {name: AdminServiceStub(channel) for name, channel in self.channels.items()}
        self.info = {name: InfoServiceStub(channel) for name, channel in self.channels.items()}

    def close(self) -> None:
        for channel in self.channels.values():
            channel.close()
