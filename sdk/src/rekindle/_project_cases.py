"""A project's volumes and cases: in, out, listed and marked."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Self

from rekindle._call import content_request_id, new_request_id
from rekindle._project_base import ProjectBase
from rekindle.api.common.v1 import common_pb2 as common
from rekindle.api.inference.v1 import volumes_pb2 as volumes
from rekindle.api.scheduler.v1 import records_pb2 as records
from rekindle.api.scheduler.v1 import scheduler_pb2 as scheduler
from rekindle.config import ModalityName, enum_value, modality_value
from rekindle.formats import FormatName, format_to_write
from rekindle.records import Case
from rekindle.slices import SliceRank, SliceStack, rank_slices, read_slices
from rekindle.uploads import Upload, create
from rekindle.volumes import Progress, Source, VolumeFile, download, payload, upload


class ProjectCases(ProjectBase):
    """The part of a project's handle that deals with volumes and cases."""

    def upload_image(
        self, image: Source, *, modality: ModalityName | str | None = None, progress: Progress | None = None
    ) -> str:
        """Sends an image (a file, or a folder with a DICOM series) and returns its volume id.

        `modality` defaults to the project's; a DICOM series must be of it.
        """
        sent = payload(image)
        header = volumes.UploadVolumeHeader(
            project_id=self.id,
            kind=common.VOLUME_KIND_IMAGE,
            format=sent.format_value,
            modality=modality_value(modality or self.modality),  # type: ignore[arg-type]
        )
        return upload(self._services, header, sent.data, progress).volume.volume_id

    def upload_mask(self, mask: Source, *, image_volume_id: str, progress: Progress | None = None) -> volumes.Receipt:
        """Sends a mask on the grid of an image (or a DICOM SEG that refers to it) and returns its receipt."""
        sent = payload(mask, is_mask=True)
        header = volumes.UploadVolumeHeader(
            project_id=self.id,
            kind=common.VOLUME_KIND_MASK,
            format=sent.format_value,
            image_volume_id=image_volume_id,
            organs=self._project.organs,
        )
        return upload(self._services, header, sent.data, progress).receipt

    def download(self, volume_id: str, progress: Progress | None = None, *, format: FormatName = "nifti") -> VolumeFile:
        """Downloads any volume of the project; masks of DICOM images also as "dicom-seg"."""
        return download(self._services, self.id, volume_id, progress, format=format)

    def save(self, volume_id: str, path: str | Path, progress: Progress | None = None) -> Path:
        """Downloads a volume in the format that the name ends in (.nii.gz, .nrrd, .mha, masks: .dcm) and writes it."""
        format = format_to_write(Path(path)) or "nifti"
        return self.download(volume_id, progress, format=format).save(path)

    def begin_upload(
        self, image: Source, *, modality: ModalityName | str | None = None, address: bool = False
    ) -> Upload:
        """Begins to upload an image in pieces, or finds the upload of the same file that was begun before.

        `Upload.send` and `Upload.finalize` do the rest. `address` asks for one of the object store's own, where the
        file can be sent by HTTP. `upload_image` of a client connected with `uploads="pieces"` does it all at once.
        """
        sent = payload(image)
        header = volumes.UploadVolumeHeader(
            project_id=self.id,
            kind=common.VOLUME_KIND_IMAGE,
            format=sent.format_value,
            modality=modality_value(modality or self.modality),  # type: ignore[arg-type]
            sha256=hashlib.sha256(sent.data).hexdigest(),
        )
        header.request_id = content_request_id(header)
        return create(self._services, header, len(sent.data), address=address)

    def read_slices(self, volume_id: str, first_slice: int = 0, slice_count: int = 0, *, level: int = 0) -> SliceStack:
        """Voxels of some slices, without the rest of the volume; a count of 0 reads to the end.

        Each level above 0 halves rows and columns: means for images, the most frequent label for masks.
        Raises InvalidInput for slices or levels that the volume does not have.
        """
        return read_slices(self._services, self.id, volume_id, first_slice, slice_count, level)

    def ranked_slices(self, mask_volume_id: str, *, organ: str | None = None, limit: int = 0) -> list[SliceRank]:
        """The slices of a coarse label where most correction is expected, those first; of one organ or of all.

        Raises NotFound (NO_PREDICTION) for a mask that no model of this service predicted.
        """
        return rank_slices(self._services, self.id, mask_volume_id, organ, limit)

    def volumes(self, volume_ids: Iterable[str]) -> list[volumes.Volume]:
        """What is known of volumes (geometry, digests), in the order asked."""
        request = volumes.BatchGetVolumesRequest(project_id=self.id, volume_ids=volume_ids)
        return list(self._services.volumes.BatchGetVolumes(request).volumes)

    def volume(self, volume_id: str) -> volumes.Volume:
        """What is known of one volume."""
        request = volumes.GetVolumeRequest(project_id=self.id, volume_id=volume_id)
        return self._services.volumes.GetVolume(request).volume

    def receipt(self, receipt_id: str) -> volumes.Receipt:
        """The receipt of an uploaded mask."""
        request = volumes.GetReceiptRequest(project_id=self.id, receipt_id=receipt_id)
        return self._services.volumes.GetReceipt(request).receipt

    def add_seed_case(
        self, image: Source, mask: Source, *, modality: ModalityName, not_reviewed: Iterable[str] = ()
    ) -> str:
        """Adds one labelled case of the public set; `not_reviewed` names organs that nobody labelled in it.

        Adding the same files again is the same seed case.
        """
        image_volume_id = self.upload_image(image, modality=modality)
        receipt = self.upload_mask(mask, image_volume_id=image_volume_id)
        request = scheduler.AddSeedCaseRequest(
            project_id=self.id,
            image_volume_id=image_volume_id,
            mask_volume_id=receipt.mask_volume_id,
            receipt_id=receipt.receipt_id,
            not_reviewed_organ_ids=not_reviewed,
        )
        request.request_id = content_request_id(request)
        answer = self._services.scheduler.AddSeedCase(request)
        return answer.seed_case.seed_case_id

    def seed_cases(self) -> list[records.SeedCase]:
        """The labelled public cases."""
        pages = self._pages(self._services.scheduler.ListSeedCases, scheduler.ListSeedCasesRequest)
        return [seed_case for page in pages for seed_case in page.seed_cases]

    def add_case(self, image: Source, *, group_key: str = "") -> Case:
        """Uploads one target volume and registers it. `group_key` joins the cases of one patient."""
        return self.register_cases([(self.upload_image(image), group_key)])[0]

    def register_cases(self, volumes_and_groups: Iterable[tuple[str, str]]) -> list[Case]:
        """Registers uploaded volumes as target cases, many in one stream: (volume id, group key) each.

        A volume that is registered already answers its case, so doing it again is harmless.
        """
        requests = [
            scheduler.RegisterCasesRequest(project_id=self.id, volume_id=volume_id, group_key=group_key)
            for volume_id, group_key in volumes_and_groups
        ]
        caller = self._services.caller

        def attempt() -> list[Case]:
            answers = self._services.scheduler.RegisterCases(
                iter(requests),
                timeout=caller.timeout_s + len(requests),
            )
            return [Case.from_proto(answer.case) for answer in answers]

        return caller.repeat(attempt) if requests else []

    def close_registration(self) -> Self:
        """No more cases come; draws the held-out ones where the policy gives a number."""
        return self._change(self._services.scheduler.CloseRegistration, scheduler.CloseRegistrationRequest)

    def case(self, case_id: str) -> Case:
        request = scheduler.GetCaseRequest(project_id=self.id, case_id=case_id)
        return Case.from_proto(self._services.scheduler.GetCase(request).case)

    def cases(
        self,
        *,
        states: Iterable[str] = (),
        held_out: bool | None = None,
        round: int = 0,
        ranked: bool = False,
    ) -> Iterator[Case]:
        """Target cases; `ranked` gives the policy's order, else the order of registration."""
        filters: dict[str, Any] = {
            "states": [enum_value(records.CaseState, "CASE_STATE", state) for state in states],
            "round": round,
            "ranked": ranked,
        }
        if held_out is not None:
            filters["held_out"] = held_out
        for page in self._pages(self._services.scheduler.ListCases, scheduler.ListCasesRequest, **filters):
            yield from (Case.from_proto(case) for case in page.cases)

    def mark(self, case_id: str, mark: str) -> Case:
        """Marks a case "easy", "hard", "put-off" or "none"."""
        request = scheduler.MarkCaseRequest(
            request_id=new_request_id(),
            project_id=self.id,
            case_id=case_id,
            mark=enum_value(records.CaseMark, "CASE_MARK", mark),  # type: ignore[arg-type]
        )
        return Case.from_proto(self._services.scheduler.MarkCase(request).case)
