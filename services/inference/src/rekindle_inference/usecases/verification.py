"""Whether the service's rows and the object store agree."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime

from rekindle.errors import NotFound
from rekindle_servicekit import layout
from rekindle_servicekit.layout import PackageKeys
from rekindle_servicekit.objects import Objects
from rekindle_servicekit.verification import Expected, Finding, Summary, VerifyOptions, compare_objects
from rekindle_servicekit.workers import Cancellation

from rekindle_inference.state import Inventory

_SEND_AGAIN = "restore the object store, or send the volume again"
_PREDICT_AGAIN = "restore the object store; a mask that was predicted can be predicted again from its image"
_UPLOAD_AGAIN = "restore the object store, or upload the package again"


def verify(
    inventory: Inventory, objects: Objects, options: VerifyOptions, summary: Summary, cancellation: Cancellation
) -> Iterator[Finding]:
    """Findings over ``volumes/``, ``canonical/``, ``packages/`` and ``uploads/``; nothing is changed."""
    now = datetime.now(UTC)
    # Rows come first: an object that is stored while they are read is younger than the grace period.
    expected = [*_of_volumes(inventory, summary), *_of_models(inventory, objects, options, summary)]
    uploads = inventory.upload_ids()
    under_way = {key for key in objects.list(layout.UPLOADS) if key.split("/")[1] in uploads}
    options = replace(options, known_objects=options.known_objects | under_way)
    folders = (layout.ORIGINALS, layout.CANONICALS, layout.PACKAGES, layout.UPLOADS)
    yield from compare_objects(objects, expected, folders, options, summary, cancellation, now=now)


def _of_volumes(inventory: Inventory, summary: Summary) -> Iterator[Expected]:
    for volume in inventory.volumes():
        summary.rows += 1
        row = f"volumes/{volume.volume_id}"
        if volume.original_digest:
            yield Expected(
                key=layout.original(volume.original_digest),
                row=row,
                project_id=volume.project_id,
                sha256=volume.original_digest,
                remedy=_SEND_AGAIN,
            )
        if volume.canonical_digest:
            yield Expected(
                key=layout.canonical(volume.canonical_digest),
                row=row,
                project_id=volume.project_id,
                sha256=volume.canonical_digest,
                remedy=_SEND_AGAIN if volume.original_digest else _PREDICT_AGAIN,
            )


def _of_models(inventory: Inventory, objects: Objects, options: VerifyOptions, summary: Summary) -> Iterator[Expected]:
    for model in inventory.models():
        summary.rows += 1
        digest, row = model.package_digest, f"models/{model.model_version_id}"
        known = {"row": row, "project_id": model.project_id, "remedy": _UPLOAD_AGAIN}
        yield Expected(key=PackageKeys(digest).manifest, sha256=digest, **known)
        model_digest = _model_digest(objects, digest) if options.deep else None
        yield Expected(key=PackageKeys(digest).model, sha256=model_digest, **known)


def _model_digest(objects: Objects, package_digest: str) -> str | None:
    """None where the manifest cannot tell, which is a finding of its own."""
    try:
        digest = json.loads(objects.get(PackageKeys(package_digest).manifest))["model_digest"]
    except (NotFound, ValueError, KeyError, TypeError):
        return None
    return digest if isinstance(digest, str) else None
