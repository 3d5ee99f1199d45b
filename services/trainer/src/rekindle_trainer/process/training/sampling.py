"""Which slices make up a batch: a function of (seed, phase, step) alone, so that a resumed run draws the same."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil

import numpy as np

from rekindle_trainer.domain.presets import Phase
from rekindle_trainer.process.training.data import TrainingCase


@dataclass(frozen=True)
class SliceRef:
    """One slice: index of its case in the list that the sampler was given, and of the slice in it."""

    case: int
    index: int


def stream_seed(*parts: object) -> list[int]:
    """Seed words for numpy that depend on the parts' text only."""
    digest = hashlib.sha256("/".join(map(str, parts)).encode()).digest()
    return np.frombuffer(digest[:16], dtype="<u4").tolist()


class Sampler:
    """Draws the slices of every step of a phase from one group of cases (for the igniter: one modality)."""

    def __init__(self, cases: Sequence[TrainingCase], phase: Phase, seed: int, *, group: str = "") -> None:
        self._phase = phase
        self._key = (seed, phase.name, group)
        pools: dict[str, list[SliceRef]] = {"seed": [], "target": []}
        foreground: set[SliceRef] = set()
        for number, case in enumerate(cases):
            shows_organ: list[bool] = np.any(case.labels, axis=(1, 2)).tolist()
            for index in range(len(case.labels)):
                ref = SliceRef(number, index)
                pools[case.source].append(ref)
                if shows_organ[index]:
                    foreground.add(ref)
        self._pools = {name: pool for name, pool in pools.items() if pool and self._share(name) > 0}
        if not self._pools:
            raise ValueError(f"phase {phase.name!r} has no slices to draw from")
        self._positive = {name: [ref for ref in pool if ref in foreground] for name, pool in self._pools.items()}
        self._negative = {name: [ref for ref in pool if ref not in foreground] for name, pool in self._pools.items()}

    def _share(self, source: str) -> float:
        return self._phase.seed_share if source == "seed" else 1.0 - self._phase.seed_share

    @property
    def slices(self) -> int:
        """Slices that the phase draws from; an epoch is as many draws."""
        return sum(map(len, self._pools.values()))

    @property
    def steps_per_epoch(self) -> int:
        return -(-self.slices // self._phase.batch)

    def draw(self, step: int) -> list[SliceRef]:
        """The slices of `step` (from 0)."""
        counts = self._counts(np.random.default_rng(stream_seed(*self._key, "source", step)))
        refs: list[SliceRef] = []
        for source, count in counts.items():
            if self._phase.foreground_share is None:
                refs += self._in_turn(source, step, count)
            else:
                refs += self._balanced(source, step, count)
        return refs

    def _counts(self, rng: np.random.Generator) -> dict[str, int]:
        """Slices per source; a fraction of a slice is drawn for by lot, so that shares hold on average."""
        batch = self._phase.batch
        if len(self._pools) == 1:
            return {next(iter(self._pools)): batch}
        wanted = batch * self._phase.seed_share
        seeds = int(wanted) + int(rng.random() < wanted % 1)
        return {"seed": seeds, "target": batch - seeds}

    def _balanced(self, source: str, step: int, count: int) -> list[SliceRef]:
        rng = np.random.default_rng(stream_seed(*self._key, source, step))
        positive, negative = self._positive[source], self._negative[source]
        share = self._phase.foreground_share or 0.0
        refs = []
        for wants_organ in rng.random(count) < share:
            pool = (positive or negative) if wants_organ else (negative or positive)
            refs.append(pool[int(rng.integers(len(pool)))])
        return refs

    def _in_turn(self, source: str, step: int, count: int) -> list[SliceRef]:
        """Every slice once per epoch, in an order of its own in each.

        Where two sources share a batch, each keeps pace by its own number of slices per step, rounded up.
        """
        pool = self._pools[source]
        per_step = self._phase.batch if len(self._pools) == 1 else ceil(self._phase.batch * self._share(source))
        orders: dict[int, np.ndarray] = {}
        refs = []
        for position in range(step * per_step, step * per_step + count):
            epoch, place = divmod(position, len(pool))
            if epoch not in orders:
                rng = np.random.default_rng(stream_seed(*self._key, source, "epoch", epoch))
                orders[epoch] = rng.permutation(len(pool))
            refs.append(pool[int(orders[epoch][place])])
        return refs
