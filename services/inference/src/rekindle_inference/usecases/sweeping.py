"""What uploads leave behind that nobody goes on with."""

from __future__ import annotations

from datetime import timedelta

from rekindle_inference.domain.uploads import UploadId, UploadState
from rekindle_inference.usecases.uploads import Uploads

#: How long an upload that has ended can still be asked about.
KEPT = timedelta(days=7)
_AT_ONCE = 100


def sweep_uploads(uploads: Uploads) -> int:
    """End the uploads whose time is over and remove their objects; how many that were.

    Those that ended otherwise are looked at once more when their time is over: a file may have been sent to an address
    that was still good. All are looked at a last time before they are forgotten: a transfer that began in time may end
    long after. Harmless when several do it at once; DependencyUnavailable where the store is away: what could not be
    removed is removed the next time.
    """
    swept = 0
    while True:
        with uploads.state.write() as writes:
            expired = writes.uploads_to_clean(writes.now, limit=_AT_ONCE)
            for upload in expired:
                writes.end_upload(upload.upload_id, UploadState.EXPIRED)
        for upload in expired:
            _remove(uploads, upload.upload_id)
            with uploads.state.write() as writes:
                writes.upload_cleaned(upload.upload_id)
        swept += len(expired)
        if len(expired) < _AT_ONCE:
            break
    _forget(uploads)
    return swept


def _forget(uploads: Uploads) -> None:
    while True:
        with uploads.state.write() as writes:
            over = writes.uploads_to_forget(writes.now - KEPT, limit=_AT_ONCE)
        for upload_id in over:
            _remove(uploads, upload_id)
        with uploads.state.write() as writes:
            writes.forget_uploads(over)
        if len(over) < _AT_ONCE:
            return


def _remove(uploads: Uploads, upload_id: UploadId) -> None:
    for key in list(uploads.objects.list(f"uploads/{upload_id}/")):
        uploads.objects.delete(key)
