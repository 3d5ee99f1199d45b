"""Volumes: take them in, give them out, say what is in a mask."""

from __future__ import annotations

import re
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from uuid import uuid4

from rekindle.errors import DependencyUnavailable, FieldViolation, InvalidInput, NotFound, quoted_id
from rekindle.vocabulary import FileFormat, Modality, Organ, OrganEffort, SourceReference, VolumeKind
from rekindle_imaging import canonical
from rekindle_imaging.geometry import Geometry
from rekindle_imaging.volume import Volume
from rekindle_servicekit import layout
from rekindle_servicekit.idempotency import RequestKey
from rekindle_servicekit.objects import Objects
from rekindle_servicekit.workers import Cancellation

from rekindle_inference.domain.receipts import (
    check_geometry,
    check_labels,
    correction_effort,
    found_organs,
)
from rekindle_inference.domain.records import OrganFound, Receipt, ReceiptId, VolumeId, VolumeRecord
from rekindle_inference.ports import MaskTarget, Observer, Parsed, Reader, Segmentations, Unobserved, Writer
from rekindle_inference.state import State, UnitOfWork
from rekindle_inference.usecases.checks import (
    check_organs,
    check_project,
    drop_if_erased,
    keep_stored,
    load_volume,
    purged,
    require_volume,
    wrong_field,
)
from rekindle_inference.usecases.dicom_seg import write_segmentation

MAX_BATCH = 1000
MAX_INSTANCES = 20_000
MAX_ACCESSION = 64
_UID = re.compile(r"[0-9.]{0,64}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Volumes:
    """What the use cases of volumes work with."""

    state: State
    objects: Objects
    reader: Reader
    writer: Writer
    segmentations: Segmentations
    max_voxels: int
    observer: Observer = field(default_factory=Unobserved)


@dataclass(frozen=True, slots=True, kw_only=True)
class Upload:
    """What a client says of the file that it sends; the file's digest has been checked."""

    project_id: str
    kind: VolumeKind
    format: FileFormat
    sha256: str
    source: SourceReference = field(default_factory=SourceReference)
    modality: Modality | None = None
    image_volume_id: str = ""
    coarse_mask_volume_id: str = ""
    organs: tuple[Organ, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Uploaded:
    """A volume, and what is said of it if it is a mask."""

    volume: VolumeRecord
    receipt: Receipt | None


@dataclass(frozen=True, slots=True, kw_only=True)
class _Examined:
    image: VolumeRecord
    coarse: VolumeRecord | None
    found: tuple[OrganFound, ...]
    effort: tuple[OrganEffort, ...]


def check_upload(upload: Upload) -> None:
    """InvalidInput naming the field that is missing or does not belong; before any byte is taken."""
    check_project(upload.project_id)
    check_source(upload.source)
    if upload.kind is VolumeKind.IMAGE:
        if upload.modality is None and upload.format is not FileFormat.DICOM:
            raise wrong_field("modality", "is required for images, unless they are DICOM: CT or MR")
        if upload.image_volume_id or upload.coarse_mask_volume_id or upload.organs:
            raise wrong_field("kind", "is image: image_volume_id, coarse_mask_volume_id, organs are for masks")
        return
    if not upload.image_volume_id:
        raise wrong_field("image_volume_id", "is required for masks: the image that the mask belongs to")
    check_organs(upload.organs, are_new=True)


def check_source(source: SourceReference) -> None:
    """InvalidInput naming the part that cannot be what it is called."""
    for name in ("study_instance_uid", "series_instance_uid", "frame_of_reference_uid"):
        if not _UID.fullmatch(getattr(source, name)):
            raise wrong_field(f"source.{name}", "must be a UID: digits and points, at most 64")
    if len(source.sop_instance_uids) > MAX_INSTANCES or not all(map(_UID.fullmatch, source.sop_instance_uids)):
        raise wrong_field("source.sop_instance_uids", f"must be at most {MAX_INSTANCES} UIDs")
    if len(source.accession_number) > MAX_ACCESSION:
        raise wrong_field("source.accession_number", f"must have at most {MAX_ACCESSION} characters")


def upload_volume(
    volumes: Volumes, request: RequestKey, upload: Upload, file: Path, cancellation: Cancellation
) -> Uploaded:
    """Take in a file, once per request id. Objects first; one commit then makes all of it visible.

    InvalidInput (the reader's reasons, GEOMETRY_MISMATCH, UNKNOWN_LABEL_VALUES), NotFound, AlreadyExists.
    """
    with volumes.state.read() as uow:
        answered = _answered(uow, request, upload)
        if answered is not None:
            return answered
        # Before the costly part, so that a wrong id costs nothing.
        image, coarse = bases_of(uow, upload)
    onto = None if image is None else MaskTarget(image=image, organs=upload.organs)
    parsed = volumes.reader.read(file, upload.kind, upload.format, cancellation, onto=onto)
    upload, data = with_what_the_file_says(upload, parsed), parsed.data
    examined = None
    if image is not None:
        mask = canonical.decode(data, max_voxels=volumes.max_voxels)
        examined = _examine(volumes, mask, image, coarse, upload.organs)
    cancellation.raise_if_set()
    digest = canonical.digest(data)
    volumes.objects.put_file(layout.original(upload.sha256), file)
    volumes.objects.put(layout.canonical(digest), data)
    try:
        return _take_in(volumes, request, upload, file, data, digest, examined)
    except DependencyUnavailable:
        # No row can refer to an image that was erased meanwhile: neither may a mask of it stay.
        if image is not None and drop_if_erased(
            volumes.state, volumes.objects, image, canonical_digest=digest, original_digest=upload.sha256
        ):
            raise purged(image.volume_id, "image_volume_id") from None
        raise


def _take_in(
    volumes: Volumes,
    request: RequestKey,
    upload: Upload,
    file: Path,
    data: bytes,
    digest: str,
    examined: _Examined | None,
) -> Uploaded:
    """The rows; objects that were erased with others of the same bytes since they were stored are stored again."""
    with volumes.state.write() as uow:
        answered = _answered(uow, request, upload)
        if answered is not None:
            return answered
        uploaded = _record(uow, upload, data, digest, examined)
        keep_stored(volumes.objects, layout.canonical(digest), data)
        if not volumes.objects.exists(layout.original(upload.sha256)):
            volumes.objects.put_file(layout.original(upload.sha256), file)
        uow.requests.add(request, uploaded.volume.volume_id.encode())
    return uploaded


def with_what_the_file_says(upload: Upload, parsed: Parsed) -> Upload:
    """The upload with modality and source as the file has them; InvalidInput where it was said otherwise."""
    if parsed.modality is not None and upload.modality not in (None, parsed.modality):
        raise InvalidInput(
            f"modality is {upload.modality}, and the file is {parsed.modality}: correct it, or leave it out",
            reason="MODALITY_MISMATCH",
        )
    if parsed.source == SourceReference():
        return replace(upload, modality=upload.modality or parsed.modality)
    for part in fields(SourceReference):
        said, found = getattr(upload.source, part.name), getattr(parsed.source, part.name)
        # Instances may be listed in any order.
        if said and (set(said) != set(found) if isinstance(said, tuple) else said != found):
            raise InvalidInput(
                f"source.{part.name} is not what the file says: correct it, or leave it out",
                reason="SOURCE_MISMATCH",
                violations=[FieldViolation(f"source.{part.name}", "is not what the file says")],
            )
    return replace(upload, modality=parsed.modality, source=parsed.source)


def get_volume(volumes: Volumes, project_id: str, volume_id: str) -> VolumeRecord:
    """NotFound where it does not exist in the project."""
    with volumes.state.read() as uow:
        return require_volume(uow, check_project(project_id), volume_id, field="volume_id")


def get_volumes(volumes: Volumes, project_id: str, volume_ids: list[str]) -> list[VolumeRecord]:
    """In the order of the ids. NotFound names those that are missing, InvalidInput for more than 1,000."""
    if len(volume_ids) > MAX_BATCH:
        raise wrong_field("volume_ids", f"must be at most {MAX_BATCH}")
    wanted = [VolumeId(volume_id) for volume_id in volume_ids]
    with volumes.state.read() as uow:
        found = uow.volumes.get_all(check_project(project_id), wanted)
    missing = [volume_id for volume_id in wanted if volume_id not in found]
    if missing:
        listed = ", ".join(quoted_id(volume_id) for volume_id in missing[:10])
        more = f" and {len(missing) - 10} more" if len(missing) > 10 else ""
        raise NotFound(f"there are no volumes {listed}{more} in this project", reason="VOLUME_NOT_FOUND")
    return [found[volume_id] for volume_id in wanted]


def get_receipt(volumes: Volumes, project_id: str, receipt_id: str) -> Receipt:
    """NotFound where it does not exist in the project."""
    with volumes.state.read() as uow:
        receipt = uow.receipts.get(check_project(project_id), ReceiptId(receipt_id))
    if receipt is None:
        raise NotFound(f"there is no receipt {quoted_id(receipt_id)} in this project", reason="RECEIPT_NOT_FOUND")
    return receipt


def write_volume(
    volumes: Volumes,
    project_id: str,
    volume_id: str,
    format: FileFormat,
    organs: tuple[Organ, ...],
    folder: Path,
    cancellation: Cancellation,
) -> tuple[VolumeRecord, Path]:
    """A volume as a file in `folder`, with the geometry that went in. NotFound, InvalidInput (format).

    `organs` replace those that a mask was made with, in a DICOM SEG.
    """
    record = get_volume(volumes, project_id, volume_id)
    if format is FileFormat.DICOM_SEG:
        return record, write_segmentation(volumes, record, organs, folder, cancellation)
    volume = load_volume(volumes.objects, record.canonical_digest, volumes.max_voxels)
    return record, volumes.writer.write(volume, format, folder)


def bases_of(uow: UnitOfWork, upload: Upload) -> tuple[VolumeRecord | None, VolumeRecord | None]:
    """The image of a mask and the coarse label that it started from, both checked to belong to it."""
    if upload.kind is VolumeKind.IMAGE:
        return None, None
    project_id = check_project(upload.project_id)
    image = require_volume(uow, project_id, upload.image_volume_id, field="image_volume_id")
    if image.kind is not VolumeKind.IMAGE:
        raise wrong_field("image_volume_id", "names a mask: name the image that the mask belongs to")
    if not upload.coarse_mask_volume_id:
        return image, None
    coarse = require_volume(uow, project_id, upload.coarse_mask_volume_id, field="coarse_mask_volume_id")
    if coarse.kind is not VolumeKind.MASK:
        raise wrong_field("coarse_mask_volume_id", "names an image: name the mask that was corrected")
    if coarse.image_volume_id != image.volume_id:
        raise InvalidInput(
            "coarse_mask_volume_id is a mask of another image: name the one that was shown for this image",
            reason="OTHER_IMAGE",
        )
    return image, coarse


def _answered(uow: UnitOfWork, request: RequestKey, upload: Upload) -> Uploaded | None:
    answer = uow.requests.find(request)
    if answer is None:
        return None
    project_id = check_project(upload.project_id)
    volume = require_volume(uow, project_id, answer.decode(), field="request_id")
    return Uploaded(volume=volume, receipt=uow.receipts.of_mask(project_id, volume.volume_id))


def _examine(
    volumes: Volumes,
    mask: Volume,
    image: VolumeRecord,
    coarse: VolumeRecord | None,
    organs: tuple[Organ, ...],
) -> _Examined:
    check_geometry(mask.geometry, image.geometry)
    check_labels(mask.voxels, organs)
    before = None
    if coarse is not None:
        before = load_volume(volumes.objects, coarse.canonical_digest, volumes.max_voxels).voxels
    return _Examined(
        image=image,
        coarse=coarse,
        found=found_organs(mask.voxels, organs, mask.geometry),
        effort=correction_effort(before, mask.voxels, organs, mask.geometry),
    )


def record_volume(
    uow: UnitOfWork, upload: Upload, data: bytes, digest: str, image_volume_id: VolumeId | None = None
) -> VolumeRecord:
    """Add the volume that was uploaded; of its canonical `data` the header is enough."""
    volume = VolumeRecord(
        volume_id=VolumeId(str(uuid4())),
        project_id=check_project(upload.project_id),
        kind=upload.kind,
        geometry=Geometry.from_dict(canonical.read_header(data)["geometry"]),
        original_digest=upload.sha256,
        canonical_digest=digest,
        original_format=upload.format,
        source=upload.source,
        created_at=uow.now,
        image_volume_id=image_volume_id,
        modality=upload.modality,
        organs=upload.organs,
    )
    uow.volumes.add(volume)
    return volume


def _record(uow: UnitOfWork, upload: Upload, data: bytes, digest: str, examined: _Examined | None) -> Uploaded:
    image_volume_id = None if examined is None else examined.image.volume_id
    volume = record_volume(uow, upload, data, digest, image_volume_id)
    if examined is None:
        return Uploaded(volume=volume, receipt=None)
    receipt = Receipt(
        receipt_id=ReceiptId(str(uuid4())),
        project_id=volume.project_id,
        mask_volume_id=volume.volume_id,
        image_volume_id=examined.image.volume_id,
        mask_digest=digest,
        image_digest=examined.image.canonical_digest,
        coarse_mask_volume_id=None if examined.coarse is None else examined.coarse.volume_id,
        organs=examined.found,
        effort=examined.effort,
        created_at=uow.now,
    )
    uow.receipts.add(receipt)
    return Uploaded(volume=volume, receipt=receipt)
