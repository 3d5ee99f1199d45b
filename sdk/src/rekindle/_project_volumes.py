"""A project's volumes: files in and out, what is known of them, their slices."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from pathlib import Path

from rekindle._call import Progress, content_request_id
from rekindle._project_base import ProjectBase
from rekindle.api.inference.v1 import volumes_pb2 as volumes
from rekindle.config import ModalityName
from rekindle.formats import FormatName, format_to_write
from rekindle.slices import SliceRank, SliceStack, rank_slices, read_slices
from rekindle.studies import Series, send_study
from rekindle.uploads import Upload, create
from rekindle.volume_records import Receipt, Volume
from rekindle.volumes import Source, VolumeFile, download, image_header, payload, upload_image, upload_mask


class ProjectVolumes(ProjectBase):
    """The part of a project's handle that deals with volumes."""

    def upload_image(
        self, image: Source, *, modality: ModalityName | str | None = None, progress: Progress | None = None
    ) -> str:
        """Sends an image (a file, or a folder with a DICOM series) and returns its volume id.

        `modality` defaults to the project's; a DICOM series must be of it.
        """
        return upload_image(self._services, self.id, image, modality or self.modality, progress)

    def upload_mask(self, mask: Source, *, image_volume_id: str, progress: Progress | None = None) -> Receipt:
        """Sends a mask on the grid of an image (or a DICOM SEG that refers to it) and returns its receipt."""
        receipt = upload_mask(self._services, self.id, mask, image_volume_id, self._project.organs, progress)
        return Receipt.from_proto(receipt)

    def upload_study(self, study: str | Path | bytes, progress: Progress | None = None) -> list[Series]:
        """Sends the DICOM files of a folder (or a tar archive of them); each series becomes a volume or says why not.

        The folder may hold several series, in any order. Sending the same files again is the same study.
        Raises InvalidInput for a file that is not an archive.
        """
        return send_study(self._services, self.id, payload(study).data, progress)

    def begin_upload(
        self, image: Source, *, modality: ModalityName | str | None = None, address: bool = False
    ) -> Upload:
        """Begins to upload an image in pieces, or finds the upload of the same file that was begun before.

        `Upload.send` and `Upload.finalize` do the rest. `address` asks for one of the object store's own, where the
        file can be sent by HTTP. `upload_image` of a client connected with `uploads="pieces"` does it all at once.
        """
        sent = payload(image)
        header = image_header(self.id, sent, modality or self.modality)
        header.sha256 = hashlib.sha256(sent.data).hexdigest()
        header.request_id = content_request_id(header)
        return create(self._services, header, len(sent.data), address=address)

    def download(self, volume_id: str, progress: Progress | None = None, *, format: FormatName = "nifti") -> VolumeFile:
        """Downloads any volume of the project; masks of DICOM images also as "dicom-seg"."""
        return download(self._services, self.id, volume_id, progress, format=format)

    def save(self, volume_id: str, path: str | Path, progress: Progress | None = None) -> Path:
        """Downloads a volume in the format that the name ends in (.nii.gz, .nrrd, .mha, masks: .dcm) and writes it."""
        format = format_to_write(Path(path)) or "nifti"
        return self.download(volume_id, progress, format=format).save(path)

    def volume(self, volume_id: str) -> Volume:
        """The record of one volume."""
        request = volumes.GetVolumeRequest(project_id=self.id, volume_id=volume_id)
        return Volume.from_proto(self._services.volumes.GetVolume(request).volume)

    def volumes(self, volume_ids: Iterable[str]) -> list[Volume]:
        """Records of volumes (geometry, digests), in the order of `volume_ids`."""
        request = volumes.BatchGetVolumesRequest(project_id=self.id, volume_ids=volume_ids)
        return [Volume.from_proto(item) for item in self._services.volumes.BatchGetVolumes(request).volumes]

    def find_volumes(
        self,
        *,
        study_instance_uid: str = "",
        series_instance_uid: str = "",
        frame_of_reference_uid: str = "",
        sop_instance_uid: str = "",
        accession_number: str = "",
    ) -> Iterator[Volume]:
        """Volumes that came from the given DICOM objects, newest first; all that is given must hold.

        Raises InvalidInput where nothing is given.
        """
        pages = self._pages(
            self._services.volumes.FindVolumes,
            volumes.FindVolumesRequest,
            study_instance_uid=study_instance_uid,
            series_instance_uid=series_instance_uid,
            frame_of_reference_uid=frame_of_reference_uid,
            sop_instance_uid=sop_instance_uid,
            accession_number=accession_number,
        )
        return (Volume.from_proto(item) for page in pages for item in page.volumes)

    def receipt(self, receipt_id: str) -> Receipt:
        """The receipt of an uploaded mask."""
        request = volumes.GetReceiptRequest(project_id=self.id, receipt_id=receipt_id)
        return Receipt.from_proto(self._services.volumes.GetReceipt(request).receipt)

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
