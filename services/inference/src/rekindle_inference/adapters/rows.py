"""Records to rows and back."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, fields
from typing import Any

from rekindle_imaging.geometry import Geometry

from rekindle_inference.domain.records import (
    CodedConcept,
    FileFormat,
    Modality,
    ModelRole,
    ModelVersion,
    Organ,
    OrganEffort,
    OrganFound,
    OrganQuality,
    Prediction,
    Receipt,
    SourceReference,
    VolumeKind,
    VolumeRecord,
)
from rekindle_inference.domain.slices import SliceRank, SliceRanks

Row = Mapping[str, Any]


def volume_row(volume: VolumeRecord) -> dict[str, Any]:
    source = {**asdict(volume.source), "sop_instance_uids": list(volume.source.sop_instance_uids)}
    organs = [asdict(organ) for organ in volume.organs]
    return {**_plain(volume), "geometry": volume.geometry.to_dict(), "source": source, "organs": organs}


def volume_of(row: Row) -> VolumeRecord:
    converted = _replaced(
        row,
        kind=VolumeKind(row["kind"]),
        geometry=Geometry.from_dict(row["geometry"]),
        original_format=FileFormat(row["original_format"]),
        source=source_of(row["source"]),
        modality=None if row["modality"] is None else Modality(row["modality"]),
        organs=tuple(_organ(organ) for organ in row["organs"] or ()),
    )
    return VolumeRecord(**converted)


def source_rows(volume: VolumeRecord) -> list[dict[str, str]]:
    """What a volume can be found by: one row for each part of its source reference."""
    source = volume.source
    single = [
        ("study_instance_uid", source.study_instance_uid),
        ("series_instance_uid", source.series_instance_uid),
        ("frame_of_reference_uid", source.frame_of_reference_uid),
        ("accession_number", source.accession_number),
    ]
    parts = [*single, *(("sop_instance_uid", uid) for uid in dict.fromkeys(source.sop_instance_uids))]
    of_volume = {"volume_id": volume.volume_id, "project_id": volume.project_id}
    return [{**of_volume, "kind": kind, "value": value} for kind, value in parts if value]


def source_of(source: Row) -> SourceReference:
    return SourceReference(**_replaced(source, sop_instance_uids=tuple(source["sop_instance_uids"])))


def receipt_row(receipt: Receipt) -> dict[str, Any]:
    return {
        **_plain(receipt),
        "organs": [asdict(organ) for organ in receipt.organs],
        "effort": [asdict(effort) for effort in receipt.effort],
    }


def receipt_of(row: Row) -> Receipt:
    organs = tuple(OrganFound(**organ) for organ in row["organs"])
    effort = tuple(OrganEffort(**effort) for effort in row["effort"])
    return Receipt(**_replaced(row, organs=organs, effort=effort))


def model_row(model: ModelVersion) -> dict[str, Any]:
    row = {**_plain(model), "organs": [asdict(organ) for organ in model.organs]}
    del row["active"]  # the pointer is kept apart
    return row


def model_of(row: Row) -> ModelVersion:
    converted = _replaced(
        row,
        role=ModelRole(row["role"]),
        organs=tuple(_organ(organ) for organ in row["organs"]),
        modality=Modality(row["modality"]),
        trained_on_purged=bool(row["trained_on_purged"]),
        active=bool(row["active"]),
    )
    return ModelVersion(**converted)


def prediction_row(prediction: Prediction) -> dict[str, Any]:
    return {**_plain(prediction), "quality": [asdict(quality) for quality in prediction.quality]}


def prediction_of(row: Row) -> Prediction:
    quality = tuple(OrganQuality(**quality) for quality in row["quality"])
    return Prediction(**_replaced(row, quality=quality))


def slice_ranks_row(ranks: SliceRanks) -> dict[str, Any]:
    organs = {
        organ: [[rank.slice, rank.voxels_wrong, rank.uncertainty] for rank in slices]
        for organ, slices in ranks.organs.items()
    }
    return {**_plain(ranks), "organs": organs}


def slice_ranks_of(row: Row) -> SliceRanks:
    organs = {
        organ: tuple(SliceRank(slice=k, voxels_wrong=wrong, uncertainty=doubt) for k, wrong, doubt in slices)
        for organ, slices in row["organs"].items()
    }
    return SliceRanks(**_replaced(row, organs=organs))


def _organ(row: Row) -> Organ:
    code = row["code"]
    return Organ(
        id=row["id"],
        label_value=row["label_value"],
        code=None if code is None else CodedConcept(**code),
    )


def _plain(record: Any) -> dict[str, Any]:
    """The record's fields as they are; `asdict` would take apart what is converted by hand."""
    return {field.name: getattr(record, field.name) for field in fields(record)}


def _replaced(row: Row, **values: Any) -> dict[str, Any]:
    return {**row, **values}
