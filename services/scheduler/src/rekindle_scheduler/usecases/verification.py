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

#: Number of volumes that are asked for in one call.
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
            yield from self._find_missing(self.inventory.receipts(), "receipt", summary, cancellation)
        yield from self._find_missing(self.inventory.models(), "model version", summary, cancellation)
        yield from self._find_missing(self.inventory.runs(), "run", summary, cancellation)
        yield from self._pointers(summary)

    def _volumes(self, summary: Summary, cancellation: Cancellation) -> Iterator[Finding]:
        for project_id, references in groupby(self.inventory.volumes(), lambda reference: reference.project_id):
            batch: list[VolumeReference] = []
            for reference in references:
                summary.rows += 1
                batch.append(reference)
                if len(batch) == _BATCH:
                    cancellation.raise_if_set()
                    yield from self._compare(project_id, batch)
                    batch = []
            yield from self._compare(project_id, batch)

    def _compare(self, project_id: ProjectId, references: Sequence[VolumeReference]) -> Iterator[Finding]:
        if not references:
            return
        try:
            volumes = self.inference.volumes(
                project_id, list(dict.fromkeys(reference.volume_id for reference in references))
            )
        except NotFound:
            if len({reference.volume_id for reference in references}) == 1:
                for reference in references:
                    yield _missing(reference.row, project_id, f"volume {reference.volume_id}", "inference")
                return
            # The answer names only some of those that are missing, so the batch is halved until one is left.
            ordered = sorted(references, key=lambda reference: reference.volume_id)
            middle = _boundary(ordered)
            yield from self._compare(project_id, ordered[:middle])
            yield from self._compare(project_id, ordered[middle:])
            return
        digests = {volume.volume_id: volume.digest for volume in volumes}
        for reference in references:
            if reference.digest is not None and digests[reference.volume_id] != reference.digest:
                yield Finding(
                    kind=FindingKind.INCONSISTENT,
                    where=reference.row,
                    project_id=project_id,
                    message=f"volume {reference.volume_id} has other pixels in inference than when it was added here",
                    remedy=_RESTORE,
                )

    def _find_missing(
        self, references: Iterator[IdReference], what: str, summary: Summary, cancellation: Cancellation
    ) -> Iterator[Finding]:
        for reference in references:
            cancellation.raise_if_set()
            summary.rows += 1
            try:
                self._ask(reference, what)
            except NotFound:
                owner = "the trainer" if what == "run" else "inference"
                yield _missing(reference.row, reference.project_id, f"{what} {reference.id}", owner)

    def _ask(self, reference: IdReference, what: str) -> None:
        if what == "receipt":
            self.inference.receipt(reference.project_id, ReceiptId(reference.id))
        elif what == "run":
            self.trainer.run(reference.project_id, RunId(reference.id))
        else:
            self.inference.model(reference.project_id, ModelVersionId(reference.id))

    def _pointers(self, summary: Summary) -> Iterator[Finding]:
        for pointer in self.inventory.pointers():
            summary.rows += 1
            try:
                active = self.inference.active_model(pointer.project_id)
            except ModelNotReady:
                active = None
            if active is None or active.model_version_id != pointer.id:
                serving = "none" if active is None else active.model_version_id
                yield Finding(
                    kind=FindingKind.INCONSISTENT,
                    where=pointer.row,
                    project_id=pointer.project_id,
                    message=f"model version {pointer.id} should serve, and in inference {serving} does",
                    remedy="activate the one that is meant (ActivateModel), or " + _RESTORE,
                )


def _boundary(ordered: Sequence[VolumeReference]) -> int:
    """Near the middle, and between two volumes, so that each half has fewer of them."""
    middle = len(ordered) // 2
    while middle > 0 and ordered[middle].volume_id == ordered[middle - 1].volume_id:
        middle -= 1
    if middle == 0:
        middle = next(i for i, reference in enumerate(ordered) if reference.volume_id != ordered[0].volume_id)
    return middle


def _missing(row: str, project_id: ProjectId, what: str, owner: str) -> Finding:
    return Finding(
        kind=FindingKind.MISSING,
        where=row,
        project_id=project_id,
        message=f"it refers to {what}, which {owner} does not know",
        remedy=_RESTORE,
    )
