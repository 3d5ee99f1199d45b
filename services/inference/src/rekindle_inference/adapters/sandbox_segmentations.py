"""Writer of DICOM SEG in the sandbox, since it reads the headers of foreign files again."""

from __future__ import annotations

from importlib.metadata import version
from pathlib import Path
from typing import Final

from rekindle.errors import InvalidInput
from rekindle.vocabulary import Organ
from rekindle_imaging import canonical
from rekindle_imaging.dicom.codes import Code, code_of
from rekindle_imaging.dicom.segmentation import Authorship, Segment
from rekindle_imaging.volume import Volume
from rekindle_servicekit.workers import Cancellation

from rekindle_inference.adapters import sandbox_child
from rekindle_inference.adapters.sandbox import Sandbox, left_behind, unreadable
from rekindle_inference.adapters.sandbox_child import SEGMENTATION_FILE, Limits
from rekindle_inference.ports import MaskProvenance, SegmentationSource

_MAGIC: Final = b"DICM"


class SandboxSegmentations:
    """Writes each DICOM SEG in a fresh child. `folder` holds what they write, until it has been taken over."""

    def __init__(self, folder: Path, limits: Limits) -> None:
        self._sandbox = Sandbox(folder, limits)
        self._limits = limits

    def write(
        self,
        source: SegmentationSource,
        mask: Volume,
        organs: tuple[Organ, ...],
        origin: MaskProvenance,
        folder: Path,
        cancellation: Cancellation,
    ) -> Path:
        """`segmentation.dcm` in `folder`. InvalidInput: NO_ORGAN_CODE and what the source's headers lack."""
        segments = tuple(_segment(organ) for organ in organs)
        mask_path, path = folder / "mask", folder / "segmentation.dcm"
        mask_path.write_bytes(canonical.encode(mask, "mask"))
        arguments = (str(source.path), source.series_instance_uid, str(mask_path), segments, _authorship(origin))
        task = sandbox_child.write_segmentation
        with self._sandbox.run(task, arguments, cancellation, archive=source.path) as (written, _):
            try:
                data = left_behind(written / SEGMENTATION_FILE, self._limits.output_bytes)
            except OSError:
                raise unreadable() from None
        if data[128:132] != _MAGIC:
            raise unreadable()
        path.write_bytes(data)
        mask_path.unlink()
        return path


def _segment(organ: Organ) -> Segment:
    given = organ.code
    if given is not None and given.scheme and given.value:
        meaning = given.meaning or organ.id
        code: Code | None = Code(scheme=given.scheme[:16], value=given.value[:16], meaning=meaning)
    else:
        code = code_of(organ.id)
    if code is None:
        raise InvalidInput(
            f"the organ {organ.id} has no code, and its name is none that a code is known for: give organs with "
            'codes, for example SCT 10200004 "Liver"',
            reason="NO_ORGAN_CODE",
            metadata={"organ_id": organ.id},
        )
    return Segment(label=organ.id, label_value=organ.label_value, code=code)


def _authorship(origin: MaskProvenance) -> Authorship:
    model = origin.model
    kind = "AUTOMATIC" if not origin.is_corrected else "MANUAL" if model is None else "SEMIAUTOMATIC"
    return Authorship(
        algorithm_type=kind,
        algorithm_name="Rekindle" if model is None else f"Rekindle {model.role.value}",
        algorithm_version="unknown" if model is None else f"{model.version} ({model.model_version_id})",
        software_version=version("rekindle-inference"),
        created_at=origin.created_at,
    )
