"""Decoded volumes that were read a moment ago: a viewer asks for slice after slice of the same one."""

from __future__ import annotations

import threading
from collections import OrderedDict
from dataclasses import dataclass

import numpy as np
from rekindle.vocabulary import Modality
from rekindle_imaging.volume import Volume
from rekindle_servicekit.objects import Objects

from rekindle_inference.usecases.checks import load_volume

#: Abdominal soft tissue, HU: centre 40, width 400.
CT_WINDOW = (-160.0, 240.0)
#: MR has no scale of its own.
MR_PERCENTILES = (1.0, 99.0)


@dataclass(slots=True)
class _Entry:
    volume: Volume
    percentiles: tuple[float, float] | None = None


class DecodedVolumes:
    """The last volumes by digest, up to `max_bytes` of voxels; safe to use from several threads.

    A canonical object is one compressed block, so that a slice costs as much as the volume: it is decoded once, by
    whoever comes first, and checked against its digest then.
    """

    def __init__(self, objects: Objects, *, max_voxels: int, max_bytes: int) -> None:
        self._objects = objects
        self._max_voxels = max_voxels
        self._max_bytes = max_bytes
        self._entries: OrderedDict[str, _Entry] = OrderedDict()
        self._lock = threading.Lock()
        self._decoding: dict[str, threading.Lock] = {}

    def get(self, digest: str) -> Volume:
        """Read-only voxels; IntegrityError where they are damaged or missing."""
        return self._entry(digest).volume

    def window(self, digest: str, modality: Modality | None) -> tuple[float, float]:
        """Values to show as black and white."""
        if modality is not Modality.MR:
            return CT_WINDOW
        entry = self._entry(digest)
        if entry.percentiles is None:
            low, high = np.percentile(entry.volume.voxels, MR_PERCENTILES)
            entry.percentiles = (float(low), float(high))
        return entry.percentiles

    def held_bytes(self) -> int:
        with self._lock:
            return self._held()

    def _entry(self, digest: str) -> _Entry:
        with self._lock:
            known = self._known(digest)
            if known is not None:
                return known
            decoding = self._decoding.setdefault(digest, threading.Lock())
        with decoding:
            with self._lock:
                known = self._known(digest)
            if known is not None:
                return known
            return self._keep(digest, load_volume(self._objects, digest, self._max_voxels))

    def _known(self, digest: str) -> _Entry | None:
        known = self._entries.get(digest)
        if known is not None:
            self._entries.move_to_end(digest)
        return known

    def _keep(self, digest: str, volume: Volume) -> _Entry:
        volume.voxels.flags.writeable = False
        entry = _Entry(volume)
        with self._lock:
            self._decoding.pop(digest, None)
            if volume.voxels.nbytes <= self._max_bytes:
                self._entries[digest] = entry
            while self._held() > self._max_bytes:
                self._entries.popitem(last=False)
        return entry

    def _held(self) -> int:
        return sum(entry.volume.voxels.nbytes for entry in self._entries.values())
