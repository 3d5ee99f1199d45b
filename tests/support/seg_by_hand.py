"""DICOM SEG taken apart by hand, with pydicom's raw elements and numpy and nothing else: an independent reader."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
from pydicom import Dataset, dcmread


def masks_of(data: bytes, instances: list[str]) -> dict[str, np.ndarray]:
    """Boolean (slices, rows, columns) by segment label; slices in the order of the source `instances`."""
    dataset = dcmread(io.BytesIO(data))
    assert "1.2.840.10008.5.1.4.1.1.66.4" == dataset.SOPClassUID
    labels = {segment.SegmentNumber: segment.SegmentLabel for segment in dataset.SegmentSequence}
    rows, columns, count = dataset.Rows, dataset.Columns, int(dataset.NumberOfFrames)
    bits = np.unpackbits(np.frombuffer(dataset.PixelData, np.uint8), bitorder="little")[: count * rows * columns]
    frames = bits.reshape(count, rows, columns).astype(bool)
    masks = {label: np.zeros((len(instances), rows, columns), bool) for label in labels.values()}
    for frame, group in zip(frames, dataset.PerFrameFunctionalGroupsSequence, strict=True):
        number = group.SegmentIdentificationSequence[0].ReferencedSegmentNumber
        source = group.DerivationImageSequence[0].SourceImageSequence[0].ReferencedSOPInstanceUID
        masks[labels[number]][instances.index(source)] |= frame
    return masks


def frame_positions(data: bytes) -> dict[str, list[float]]:
    """Image position of the frames by the source instance that they refer to."""
    found: dict[str, list[float]] = {}
    for group in dcmread(io.BytesIO(data)).PerFrameFunctionalGroupsSequence:
        source = group.DerivationImageSequence[0].SourceImageSequence[0].ReferencedSOPInstanceUID
        found[str(source)] = [float(x) for x in group.PlanePositionSequence[0].ImagePositionPatient]
    return found


def segment(data: bytes, label: str) -> Dataset:
    """The description of one segment."""
    (found,) = [s for s in dcmread(io.BytesIO(data)).SegmentSequence if s.SegmentLabel == label]
    return found


def changed(data: bytes, **elements: Any) -> bytes:
    """The same SEG with elements replaced; `refer_to` replaces the first frame's source instance."""
    dataset = dcmread(io.BytesIO(data))
    if uid := elements.pop("refer_to", None):
        source = dataset.PerFrameFunctionalGroupsSequence[0].DerivationImageSequence[0].SourceImageSequence[0]
        source.ReferencedSOPInstanceUID = uid
    for keyword, value in elements.items():
        setattr(dataset, keyword, value)
    out = io.BytesIO()
    dataset.save_as(out)
    return out.getvalue()
