"""Whether what the scheduler refers to is known to inference and the trainer."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby

from rekindle.errors import ModelNotReady, NotFound
from rekindle_servicekit.verification import Finding, FindingKind, Summary, VerifyOptions
from rekindle_servicekit.workers import Cancellation

from rekindle_scheduler.domain.ids import ModelVersionId, ProjectId, ReceiptId, RunId
from rekindle_scheduler.ports import Inference, Trainer
from rekindle_scheduler.state.inventory import IdReference, Inventory, VolumeReference

#: Volumes asked for at a time.
_BATCH = 500
_RESTORE = "restore the databases of all services to the same moment"


@dataclass(frozen=True, slots=True)
class Verification:
    """One look at all that the scheduler refers to."""

    inventory: Inventory
    inference: Inference
    trainer: Trainer

    def __call__(self, options: VerifyOptions, summary: Summary, cancellation: Cancellation) -> Iterator[Finding]:
        """Findings; receipts, of which each takes a call, only with `deep`. DependencyUnavailable."""
        yield from self._volumes(summary, cancellation)
        if options.deep:
            yield from self._each(self.inventory.receipts(), "receipt", summary, cancellation)
        yield from self._each(self.inventory.models(), "model version", summary, cancellation)
        yield from self._each(self.inventory.runs(), "run", summary, cancellation)
        yield from self._pointers(summary)

    def _volumes(self, summary: Summary, cancellation: Cancellation) -> Iterator[Finding]:
        for project_id, named in groupby(self.inventory.volumes(), lambda each: each.project_id):
            batch: list[VolumeReference] = []
            for each in named:
                summary.rows += 1
                batch.append(each)
                if len(batch) == _BATCH:
                    cancellation.raise_if_set()
                    yield from self._compare(project_id, batch)
                    batch = []
            yield from self._compare(project_id, batch)

    def _compare(self, project_id: ProjectId, named: Sequence[VolumeReference]) -> Iterator[Finding]:
        if not named:
            return
        try:
            found = self.inference.volumes(project_id, list(dict.fromkeys(each.volume_id for each in named)))
        except NotFound:
            if len({each.volume_id for each in named}) == 1:
                for each in named:
                    yield _missing(each.row, project_id, f"volume {each.volume_id}", "inference")
                return
            # The answer names only some of those that are missing, so the batch is halved until one is left.
            ordered = sorted(named, key=lambda each: each.volume_id)
            middle = _boundary(ordered)
            yield from self._compare(project_id, ordered[:middle])
            yield from self._compare(project_id, ordered[middle:])
            return
        digests = {volume.volume_id: volume.digest for volume in found}
        for each in named:
            if each.digest is not None and digests[each.volume_id] != each.digest:
                yield Finding(
                    kind=FindingKind.INCONSISTENT,
                    where=each.row,
                    project_id=project_id,
                    message=f"volume {each.volume_id} has other pixels in inference than when it was taken in here",
                    remedy=_RESTORE,
                )

    def _each(
        self, named: Iterator[IdReference], what: str, summary: Summary, cancellation: Cancellation
    ) -> Iterator[Finding]:
        for each in named:
            cancellation.raise_if_set()
            summary.rows += 1
            try:
                self._ask(each, what)
            except NotFound:
                owner = "the trainer" if what == "run" else "inference"
                yield _missing(each.row, each.project_id, f"{what} {each.id}", owner)

    def _ask(self, each: IdReference, what: str) -> None:
        if what == "receipt":
            self.inference.receipt(each.project_id, ReceiptId(each.id))
        elif what == "run":
            self.trainer.run(each.project_id, RunId(each.id))
        else:
            self.inference.model(each.project_id, ModelVersionId(each.id))

    def _pointers(self, summary: Summary) -> Iterator[Finding]:
        for each in self.inventory.pointers():
            summary.rows += 1
            try:
                active = self.inference.active_model(each.project_id)
            except ModelNotReady:
                active = None
            if active is None or active.model_version_id != each.id:
                serving = "none" if active is None else active.model_version_id
                yield Finding(
                    kind=FindingKind.INCONSISTENT,
                    where=each.row,
                    project_id=each.project_id,
                    message=f"model version {each.id} is taken for the one that serves, and in inference {serving} is",
                    remedy="activate the one that is meant (ActivateModel), or " + _RESTORE,
                )


def _boundary(ordered: Sequence[VolumeReference]) -> int:
    """Near the middle, and between two volumes, so that each half has fewer of them."""
    middle = len(ordered) // 2
    while middle > 0 and ordered[middle].volume_id == ordered[middle - 1].volume_id:
        middle -= 1
    if middle == 0:
        middle = next(i for i, each in enumerate(ordered) if each.volume_id != ordered[0].volume_id)
    return middle


def _missing(row: str, project_id: ProjectId, what: str, owner: str) -> Finding:
    return Finding(
        kind=FindingKind.MISSING,
        where=row,
        project_id=project_id,
        message=f"it refers to {what}, which {owner} does not know",
        remedy=_RESTORE,
    )
