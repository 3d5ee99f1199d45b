"""A project's volumes by where they came from: studies in, volumes found again."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from rekindle._project_base import ProjectBase
from rekindle.api.inference.v1 import volumes_pb2 as volumes
from rekindle.studies import Series, send_study
from rekindle.volumes import Progress, payload


class ProjectSources(ProjectBase):
    """The part of a project's handle that deals with DICOM studies and references."""

    def upload_study(self, study: str | Path | bytes, progress: Progress | None = None) -> list[Series]:
        """Sends the DICOM files of a folder (or a tar archive of them); each series becomes a volume or says why not.

        The folder may hold several series, in any order. Sending the same files again is the same study.
        Raises InvalidInput for an archive that is none.
        """
        return send_study(self._services, self.id, payload(study).data, progress)

    def find_volumes(
        self,
        *,
        study_instance_uid: str = "",
        series_instance_uid: str = "",
        frame_of_reference_uid: str = "",
        sop_instance_uid: str = "",
        accession_number: str = "",
    ) -> Iterator[volumes.Volume]:
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
        return (volume for page in pages for volume in page.volumes)
