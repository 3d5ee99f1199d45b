"""The way in: a client for Rekindle's three services."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Self, Unpack

from rekindle._call import Caller, Credentials, Retry, UploadWay, new_request_id, open_channel
from rekindle._services import Services
from rekindle.admin import AdminCalls
from rekindle.api.common.v1 import common_pb2 as common
from rekindle.api.inference.v1 import inference_pb2 as inference
from rekindle.api.scheduler.v1 import scheduler_pb2 as scheduler
from rekindle.config import ModalityName, Organ, Policy, modality_value
from rekindle.convert import from_proto, to_proto
from rekindle.credentials import AccessOptions, from_environment
from rekindle.errors import IntegrityError, InvalidInput
from rekindle.formats import FormatName, format_name, format_value
from rekindle.leases import Lease
from rekindle.models import selector
from rekindle.projects import Project
from rekindle.records import OrganQuality
from rekindle.results import Abstention
from rekindle.segmentations import PriorityName, priority_value
from rekindle.server_info import InfoCalls
from rekindle.tickets import read_ticket
from rekindle.volumes import CHUNK_BYTES, Payload, Source, VolumeFile, payload

__all__ = ["DEFAULT_ADDRESS", "Client", "Credentials", "Retry", "Segmentation", "connect"]

#: Address of the scheduler that `make up` starts.
DEFAULT_ADDRESS = "127.0.0.1:50051"


@dataclass(frozen=True, kw_only=True)
class Segmentation:
    """The mask of an ad hoc segmentation, on the grid of the volume that went in."""

    mask: VolumeFile
    model_version_id: str
    quality: tuple[OrganQuality, ...]
    #: Organs that were left out of the mask, with the reason.
    abstentions: tuple[Abstention, ...] = ()


class Client(AdminCalls, InfoCalls):
    """A connection to the three services. Synchronous; safe to share between threads."""

    def __init__(self, services: Services) -> None:
        self._services = services
        self._warned = set[str]()

    @classmethod
    def connect(
        cls,
        address: str = DEFAULT_ADDRESS,
        *,
        inference: str | None = None,
        trainer: str | None = None,
        credentials: Credentials | None = None,
        timeout_s: float = 60.0,
        retry: Retry | None = None,
        uploads: UploadWay = "auto",
        **access: Unpack[AccessOptions],
    ) -> Client:
        """Connects to the scheduler at `address` ("host:port").

        Inference and trainer listen on the next two ports unless their addresses are given. Behind one
        gateway give its address for all three. TLS and who calls are in `access` (`AccessOptions`) and, where
        that does not say, in REKINDLE_TLS, REKINDLE_CA, REKINDLE_TOKEN_FILE and so on; `credentials` replaces all
        of it. `uploads` says how files are sent: "auto" in one stream, and in pieces where that breaks; "stream";
        "pieces", for bad lines; "address", by HTTP to the object store. Raises InvalidInput for an address without
        a port, and for a token that would travel in plain text.
        """
        for given in (address, inference or address, trainer or address):
            _check_address(given)
        host, _, port = address.rpartition(":")
        addresses = {
            "scheduler": address,
            "inference": inference or f"{host}:{int(port) + 1}",
            "trainer": trainer or f"{host}:{int(port) + 2}",
        }
        caller = Caller(timeout_s=timeout_s, retry=retry, uploads=uploads)
        proof = credentials or from_environment(**access)
        return cls(Services(addresses, caller, lambda host_port: open_channel(host_port, proof)))

    def create_project(
        self,
        name: str,
        organs: Sequence[Organ],
        *,
        modality: ModalityName = "CT",
        policy: Policy | None = None,
        request_id: str | None = None,
    ) -> Project:
        """Creates a project; nothing runs until `Project.start`."""
        request = scheduler.CreateProjectRequest(
            request_id=request_id or new_request_id(),
            display_name=name,
            organs=[to_proto(organ, common.Organ) for organ in organs],
            target_modality=modality_value(modality),  # type: ignore[arg-type]
        )
        if policy is not None:
            request.policy.CopyFrom(policy.to_proto())
        answer = self._services.scheduler.CreateProject(request)
        return Project(self._services, answer.project)

    def project(self, project_id: str) -> Project:
        """The project with this id. Raises NotFound."""
        request = scheduler.GetProjectRequest(project_id=project_id)
        return Project(self._services, self._services.scheduler.GetProject(request).project)

    def projects(self) -> Iterator[Project]:
        """Every project."""
        token = ""
        while True:
            request = scheduler.ListProjectsRequest(page_size=100, page_token=token)
            page = self._services.scheduler.ListProjects(request)
            yield from (Project(self._services, project) for project in page.projects)
            token = page.next_page_token
            if not token:
                return

    def resume(self, ticket: str, *, tool: str = "") -> Lease:
        """Resumes a lease by the text of `Lease.ticket`, in this process; the tool that held it can no longer write.

        The time so far is kept, and `Lease.draft` brings the saved mask. A lease that has run out is resumed too,
        unless another annotator has taken the case. Raises LeaseLost then, and InvalidInput for another text.
        """
        return self.project(read_ticket(ticket).lease.project_id).resume(ticket, tool=tool)

    def segment(
        self,
        image: Source,
        *,
        project_id: str,
        model_version_id: str | None = None,
        result_format: FormatName | None = None,
        priority: PriorityName = "routine",
        progress: Callable[[int, int], None] | None = None,
        timeout_s: float = 600.0,
    ) -> Segmentation:
        """Segments one volume outside any round; nothing is stored. `progress` gets (slices done, in all).

        The mask comes in the image's format, of a DICOM series as "dicom-seg", unless `result_format` says otherwise.
        "stat" pauses what is less urgent meanwhile.
        """
        sent = payload(image)
        caller = self._services.caller

        def attempt() -> Segmentation:
            parts = self._services.inference.Segment(
                _segment_parts(project_id, model_version_id, sent, result_format, priority),
                timeout=timeout_s,
            )
            return _collect_segmentation(parts, progress)

        return caller.repeat(attempt)

    def close(self) -> None:
        """Closes the channels."""
        self._services.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def connect(address: str = DEFAULT_ADDRESS, **options: object) -> Client:
    """Short for `Client.connect`."""
    return Client.connect(address, **options)  # type: ignore[arg-type]


def _check_address(address: str) -> None:
    host, _, port = address.rpartition(":")
    if not host or not port.isdigit() or not 0 < int(port) < 65536:
        raise InvalidInput(f"{address!r} is not host:port; for a local stack use {DEFAULT_ADDRESS}")


def _collect_segmentation(
    parts: Iterator[inference.SegmentResponse], progress: Callable[[int, int], None] | None
) -> Segmentation:
    result: inference.SegmentResult | None = None
    received = bytearray()
    for part in parts:
        kind = part.WhichOneof("part")
        if kind == "progress" and progress:
            progress(part.progress.slices_done, part.progress.slices_total)
        elif kind == "result":
            result = part.result
        elif kind == "chunk":
            received += part.chunk
    if result is None or hashlib.sha256(received).hexdigest() != result.sha256:
        raise IntegrityError("the mask arrived damaged; segment the volume again")
    return Segmentation(
        mask=VolumeFile(bytes(received), "", format_name(result.format)),
        model_version_id=result.model_version_id,
        quality=tuple(from_proto(item, OrganQuality) for item in result.quality),
        abstentions=tuple(Abstention.from_proto(item) for item in result.abstentions),
    )


def _segment_parts(
    project_id: str,
    model_version_id: str | None,
    sent: Payload,
    result_format: FormatName | None,
    priority: PriorityName,
) -> Iterator[inference.SegmentRequest]:
    header = inference.SegmentHeader(
        project_id=project_id,
        model=selector(model_version_id),
        format=sent.format_value,
        result_format=format_value(result_format) if result_format else common.FILE_FORMAT_UNSPECIFIED,
        sha256=hashlib.sha256(sent.data).hexdigest(),
        priority=priority_value(priority),
    )
    yield inference.SegmentRequest(header=header)
    for start in range(0, len(sent.data), CHUNK_BYTES):
        yield inference.SegmentRequest(chunk=sent.data[start : start + CHUNK_BYTES])
