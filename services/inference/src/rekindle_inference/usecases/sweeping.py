"""What uploads leave behind that nobody goes on with."""

from __future__ import annotations

from datetime import timedelta

from rekindle_servicekit.layout import UploadKeys

from rekindle_inference.domain.uploads import UploadId, UploadRecord, UploadState
from rekindle_inference.usecases.uploads import Uploads

#: How long an upload that has ended can still be asked about.
KEPT = timedelta(days=7)
_AT_ONCE = 100


def sweep_uploads(uploads: Uploads) -> int:
    """End the uploads whose time is over and remove their objects; how many that were.

    Those that ended otherwise are looked at once more when their time is over: a file may have been sent to an address
    that was still good. All are looked at a last time before they are forgotten: a transfer that began in time may end
    long after. Harmless when several do it at once.

    One whose objects cannot be removed keeps no others from being swept, and is tried again the next time; why is
    raised in the end. DependencyUnavailable at once where the store is away.
    """
    failures: list[Exception] = []
    swept = _clean(uploads, failures)
    _forget(uploads, failures)
    if failures:
        raise failures[0]
    return swept


def _clean(uploads: Uploads, failures: list[Exception]) -> int:
    swept, last = 0, None
    while True:
        with uploads.state.write() as uow:
            expired = uow.uploads.to_clean(limit=_AT_ONCE, after=last)
            for upload in expired:
                uow.uploads.end(upload.upload_id, UploadState.EXPIRED)
        removed = _removed(uploads, expired, failures)
        with uploads.state.write() as uow:
            for upload_id in removed:
                uow.uploads.mark_cleaned(upload_id)
        swept += len(removed)
        if len(expired) < _AT_ONCE:
            return swept
        last = expired[-1]


def _forget(uploads: Uploads, failures: list[Exception]) -> None:
    last = None
    while True:
        with uploads.state.write() as uow:
            over = uow.uploads.to_forget(uow.now - KEPT, limit=_AT_ONCE, after=last)
        removed = _removed(uploads, over, failures)
        with uploads.state.write() as uow:
            uow.uploads.forget(removed)
        if len(over) < _AT_ONCE:
            return
        last = over[-1]


def _removed(uploads: Uploads, those: list[UploadRecord], failures: list[Exception]) -> list[UploadId]:
    """Those of which nothing is left in the store."""
    removed: list[UploadId] = []
    for upload in those:
        # A store that cannot list is away: the others would fare no better.
        keys = list(uploads.objects.list(UploadKeys(upload.upload_id).folder))
        try:
            for key in keys:
                uploads.objects.delete(key)
        except Exception as error:  # an object that is locked, or somebody else's
            failures.append(error)
        else:
            removed.append(upload.upload_id)
    return removed
