"""A data set on disk: `seed/ct`, `seed/mr` and `target`, each with `images/` and `labels/`."""

from __future__ import annotations

import random
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, Self

from rekindle.errors import InvalidInput

SUFFIXES = (".nii.gz", ".nii")


@dataclass(frozen=True, kw_only=True)
class Pair:
    """One labelled volume on disk."""

    name: str
    image: Path
    label: Path


@dataclass(frozen=True, kw_only=True)
class DataSet:
    """What a campaign works on. Labels of `target` are for the simulated annotator alone."""

    root: Path
    seed_ct: tuple[Pair, ...]
    seed_mr: tuple[Pair, ...]
    target: tuple[Pair, ...]

    @classmethod
    def read(cls, root: Path) -> Self:
        """Finds the pairs. Raises InvalidInput that names what is missing; `seed/mr` may be."""
        if not root.is_dir():
            raise InvalidInput(f"there is no folder {root}: give DATA=folder with seed/ct and target in it")
        return cls(
            root=root,
            seed_ct=_pairs(root / "seed" / "ct"),
            seed_mr=_pairs(root / "seed" / "mr", optional=True),
            target=_pairs(root / "target"),
        )

    def with_seed_ct(self, count: int | None, seed: int) -> DataSet:
        """The same with `count` of the CT seeds, drawn by `seed`; None keeps all. Raises InvalidInput."""
        if count is None:
            return self
        if not 1 <= count <= len(self.seed_ct):
            raise InvalidInput(f"SEED_CT={count}: this data has 1 to {len(self.seed_ct)} CT seeds")
        chosen = random.Random(seed).sample(self.seed_ct, count)
        return replace(self, seed_ct=tuple(sorted(chosen, key=lambda pair: pair.name)))

    def seeds(self) -> list[tuple[Pair, Literal["CT", "MR"]]]:
        """Seed cases with their modality."""
        return [*((pair, "CT") for pair in self.seed_ct), *((pair, "MR") for pair in self.seed_mr)]


def _pairs(folder: Path, *, optional: bool = False) -> tuple[Pair, ...]:
    images = _volumes(folder / "images")
    if not images:
        if optional:
            return ()
        raise InvalidInput(f"{folder / 'images'} holds no .nii.gz files")
    labels = _volumes(folder / "labels")
    missing = sorted(set(images) - set(labels))
    if missing:
        raise InvalidInput(f"{folder / 'labels'} lacks {', '.join(missing)}: every image needs a label of its name")
    return tuple(Pair(name=name, image=images[name], label=labels[name]) for name in sorted(images))


def _volumes(folder: Path) -> dict[str, Path]:
    if not folder.is_dir():
        return {}
    found: dict[str, Path] = {}
    for path in sorted(folder.iterdir()):
        for suffix in SUFFIXES:
            if path.name.endswith(suffix):
                found[path.name.removesuffix(suffix)] = path
                break
    return found
