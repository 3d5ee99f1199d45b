"""Volumes and receipts, as inference answers them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from rekindle.vocabulary import Digest, Modality, OrganEffort

from rekindle_scheduler.domain.ids import ReceiptId, VolumeId


@dataclass(frozen=True, kw_only=True)
class Volume:
    """What inference knows of an ingested volume, as far as the scheduler asks."""

    volume_id: VolumeId
    is_image: bool
    #: Modality of an image; not set for masks.
    modality: Modality | None
    #: Digest of the canonical object.
    digest: Digest


@dataclass(frozen=True, kw_only=True)
class Receipt:
    """What inference says of an uploaded mask."""

    receipt_id: ReceiptId
    mask_volume_id: VolumeId
    mask_digest: Digest
    image_volume_id: VolumeId
    image_digest: Digest
    #: Mask that the annotator began with; None where the label was drawn from nothing.
    coarse_mask_volume_id: VolumeId | None
    #: Voxels by organ id.
    voxels: Mapping[str, int]
    effort: tuple[OrganEffort, ...]
