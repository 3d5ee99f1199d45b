"""Messages to records and back."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from enum import StrEnum
from typing import Any, TypeVar

from rekindle.api.common.v1 import common_pb2 as common
from rekindle.api.inference.v1 import inference_pb2 as inference
from rekindle.api.inference.v1 import volumes_pb2 as messages
from rekindle.convert import timestamp
from rekindle_imaging.geometry import Geometry

from rekindle_inference.domain import records
from rekindle_inference.usecases.checks import wrong_field
from rekindle_inference.usecases.studies import SeriesOutcome
from rekindle_inference.usecases.volumes import Upload

_KINDS: dict[Any, records.VolumeKind] = {
    common.VOLUME_KIND_IMAGE: records.VolumeKind.IMAGE,
    common.VOLUME_KIND_MASK: records.VolumeKind.MASK,
}
_FORMATS: dict[Any, records.FileFormat] = {
    common.FILE_FORMAT_NIFTI: records.FileFormat.NIFTI,
    common.FILE_FORMAT_NRRD: records.FileFormat.NRRD,
    common.FILE_FORMAT_METAIMAGE: records.FileFormat.METAIMAGE,
    common.FILE_FORMAT_DICOM: records.FileFormat.DICOM,
    common.FILE_FORMAT_DICOM_SEG: records.FileFormat.DICOM_SEG,
}
_MODALITIES: dict[Any, records.Modality] = {
    common.MODALITY_CT: records.Modality.CT,
    common.MODALITY_MR: records.Modality.MR,
}
_ROLES: dict[Any, records.ModelRole] = {
    inference.MODEL_ROLE_IGNITER: records.ModelRole.IGNITER,
    inference.MODEL_ROLE_SUSTAINER: records.ModelRole.SUSTAINER,
}

Word = TypeVar("Word", bound=StrEnum)


def to_kind(value: int) -> records.VolumeKind:
    return known(_KINDS, value, "kind")


def to_format(value: int, *, field: str = "format") -> records.FileFormat:
    """InvalidInput where it is unspecified or unknown."""
    return known(_FORMATS, value, field)


def to_format_or(value: int, default: records.FileFormat, *, field: str) -> records.FileFormat:
    """`default` where it is unspecified."""
    return default if value == common.FILE_FORMAT_UNSPECIFIED else to_format(value, field=field)


def to_role(value: int) -> records.ModelRole:
    return known(_ROLES, value, "role")


def to_organs(organs: Iterable[common.Organ]) -> tuple[records.Organ, ...]:
    return tuple(
        records.Organ(id=o.id, label_value=o.label_value, code=_to_code(o.code) if o.HasField("code") else None)
        for o in organs
    )


def to_upload(header: messages.UploadVolumeHeader) -> Upload:
    """InvalidInput where a word of it is unspecified or unknown."""
    is_given = header.modality != common.MODALITY_UNSPECIFIED
    return Upload(
        project_id=header.project_id,
        kind=to_kind(header.kind),
        format=to_format(header.format),
        sha256=header.sha256,
        source=_to_source(header.source),
        modality=known(_MODALITIES, header.modality, "modality") if is_given else None,
        image_volume_id=header.image_volume_id,
        coarse_mask_volume_id=header.coarse_mask_volume_id,
        organs=to_organs(header.organs),
    )


def to_selected_model(selector: inference.ModelSelector) -> str | None:
    """The id of a model version, or None for whichever is active."""
    chosen = selector.WhichOneof("model")
    if chosen == "model_version_id" and selector.model_version_id:
        return selector.model_version_id
    if chosen == "active" and selector.active:
        return None
    raise wrong_field("model", "must be a model_version_id, or active")


def to_criteria(request: messages.FindVolumesRequest) -> dict[str, str]:
    """What volumes are looked for by; "" for any."""
    return {
        "study_instance_uid": request.study_instance_uid,
        "series_instance_uid": request.series_instance_uid,
        "frame_of_reference_uid": request.frame_of_reference_uid,
        "sop_instance_uid": request.sop_instance_uid,
        "accession_number": request.accession_number,
    }


def from_outcome(outcome: SeriesOutcome) -> messages.SeriesOutcome:
    volume, failure = outcome.volume, outcome.failure
    return messages.SeriesOutcome(
        series_instance_uid=outcome.series_instance_uid,
        modality=outcome.modality,
        volume=None if volume is None else from_volume(volume, whole=False),
        failure=None if failure is None else messages.SeriesFailure(reason=failure.reason, message=failure.message),
    )


def from_volume(volume: records.VolumeRecord, *, whole: bool = True) -> messages.Volume:
    """Without `whole` the list of instances is left out: many volumes' lists would be too long for one message."""
    modality = volume.modality
    return messages.Volume(
        volume_id=volume.volume_id,
        project_id=volume.project_id,
        kind=back(_KINDS, volume.kind),
        geometry=from_geometry(volume.geometry),
        original_digest=volume.original_digest,
        canonical_digest=volume.canonical_digest,
        original_format=from_format(volume.original_format),
        source=from_source(volume.source if whole else replace(volume.source, sop_instance_uids=())),
        create_time=timestamp(volume.created_at),
        image_volume_id=volume.image_volume_id or "",
        modality=common.MODALITY_UNSPECIFIED if modality is None else back(_MODALITIES, modality),
    )


def from_geometry(geometry: Geometry) -> common.Geometry:
    return common.Geometry(
        size=geometry.size,
        spacing_mm=geometry.spacing_mm,
        origin_mm=geometry.origin_mm,
        direction=geometry.direction,
    )


def from_format(format: records.FileFormat) -> common.FileFormat.ValueType:
    return back(_FORMATS, format)


def from_receipt(receipt: records.Receipt) -> messages.Receipt:
    return messages.Receipt(
        receipt_id=receipt.receipt_id,
        project_id=receipt.project_id,
        mask_volume_id=receipt.mask_volume_id,
        image_volume_id=receipt.image_volume_id,
        mask_digest=receipt.mask_digest,
        coarse_mask_volume_id=receipt.coarse_mask_volume_id or "",
        organs=[
            messages.OrganFound(organ_id=o.organ_id, voxels=o.voxels, volume_ml=o.volume_ml) for o in receipt.organs
        ],
        effort=[
            common.OrganEffort(
                organ_id=e.organ_id,
                voxels_changed=e.voxels_changed,
                added_path_length_mm=e.added_path_length_mm,
                dice=e.dice,
                components_removed=e.components_removed,
            )
            for e in receipt.effort
        ],
        create_time=timestamp(receipt.created_at),
        image_digest=receipt.image_digest,
    )


def from_model(model: records.ModelVersion) -> inference.Model:
    return inference.Model(
        model_version_id=model.model_version_id,
        project_id=model.project_id,
        role=back(_ROLES, model.role),
        version=model.version,
        package_digest=model.package_digest,
        organs=[_from_organ(organ) for organ in model.organs],
        modality=back(_MODALITIES, model.modality),
        active=model.active,
        create_time=timestamp(model.created_at),
        weights_digest=model.weights_digest,
        snapshot_digest=model.snapshot_digest,
        trained_on_purged=model.trained_on_purged,
    )


def from_prediction(prediction: records.Prediction) -> inference.Prediction:
    return inference.Prediction(
        model_version_id=prediction.model_version_id,
        mask_volume_id=prediction.mask_volume_id,
        mask_digest=prediction.mask_digest,
        quality=from_quality(prediction.quality),
        predicted_minutes=prediction.predicted_minutes,
    )


def from_quality(quality: Iterable[records.OrganQuality]) -> list[common.OrganQuality]:
    return [
        common.OrganQuality(
            organ_id=q.organ_id,
            soft_dice_confidence=q.soft_dice_confidence,
            predicted_ml=q.predicted_ml,
            boundary_length_mm=q.boundary_length_mm,
            components=q.components,
            slices=q.slices,
        )
        for q in quality
    ]


def _to_code(code: common.CodedConcept) -> records.CodedConcept:
    return records.CodedConcept(scheme=code.scheme, value=code.value, meaning=code.meaning)


def _from_organ(organ: records.Organ) -> common.Organ:
    code = organ.code
    concept = None
    if code is not None:
        concept = common.CodedConcept(scheme=code.scheme, value=code.value, meaning=code.meaning)
    return common.Organ(id=organ.id, label_value=organ.label_value, code=concept)


def _to_source(source: common.SourceReference) -> records.SourceReference:
    return records.SourceReference(
        study_instance_uid=source.study_instance_uid,
        series_instance_uid=source.series_instance_uid,
        frame_of_reference_uid=source.frame_of_reference_uid,
        sop_instance_uids=tuple(source.sop_instance_uids),
        accession_number=source.accession_number,
    )


def from_source(source: records.SourceReference) -> common.SourceReference | None:
    if source == records.SourceReference():
        return None
    return common.SourceReference(
        study_instance_uid=source.study_instance_uid,
        series_instance_uid=source.series_instance_uid,
        frame_of_reference_uid=source.frame_of_reference_uid,
        sop_instance_uids=source.sop_instance_uids,
        accession_number=source.accession_number,
    )


def known(words: dict[Any, Word], value: int, field: str) -> Word:
    """The word that a number stands for; InvalidInput where it is unspecified or unknown."""
    if value not in words:
        listed = ", ".join(word.value for word in words.values())
        raise wrong_field(field, f"must be one of: {listed}")
    return words[value]


def back(words: dict[Any, Word], word: Word) -> Any:
    """The number that stands for a word."""
    return next(value for value, known in words.items() if known is word)
