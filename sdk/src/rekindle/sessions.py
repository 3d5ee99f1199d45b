"""Sessions: several cases leased ahead, fetched while the annotator works, or taken along to work offline."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from pathlib import Path

from rekindle._call import new_request_id
from rekindle._services import Services
from rekindle.api.scheduler.v1 import annotation_pb2 as api
from rekindle.api.scheduler.v1 import records_pb2 as records
from rekindle.case_folder import write_case, write_session
from rekindle.config import Organ
from rekindle.leases import Lease
from rekindle.records import moment

#: Cases fetched ahead of the one that is worked on.
AHEAD = 2


class Session:
    """Cases that are yours for some minutes of work.

    Iterating gives their leases in the order of work, each with its files fetched ahead in the background.
    As a context manager it releases, at the end, what was not submitted.
    """

    def __init__(self, services: Services, session: api.Session, organs: tuple[Organ, ...]) -> None:
        self._services = services
        self._session = session
        self._organs = organs
        self._leases = [Lease(services, lease, organs, fresh=False) for lease in session.leases if _is_live(lease)]

    @property
    def id(self) -> str:
        return self._session.session_id

    @property
    def minutes(self) -> float:
        """Minutes of work that were asked for."""
        return self._session.minutes

    @property
    def predicted_minutes(self) -> float:
        """Minutes of correction that its cases are expected to take."""
        return self._session.predicted_minutes

    @property
    def detached(self) -> bool:
        """Whether it is worked on offline."""
        return self._session.detached

    @property
    def expires(self) -> datetime | None:
        """When its leases end unless they are renewed."""
        return moment(self._session, "expire_time")

    @property
    def ended(self) -> datetime | None:
        return moment(self._session, "end_time")

    @property
    def cases(self) -> int:
        """Number of cases that it began with."""
        return len(self._session.leases)

    @property
    def leases(self) -> list[Lease]:
        """Leases that were live when the session was read, in the order of work."""
        return list(self._leases)

    def __iter__(self) -> Iterator[Lease]:
        """The leases; the files of the next two cases come in the background while one is worked on."""
        pool = ThreadPoolExecutor(max_workers=1, thread_name_prefix="rekindle-prefetch")
        try:
            for index, lease in enumerate(self._leases):
                for following in self._leases[index : index + 1 + AHEAD]:
                    following.prefetch(pool)
                yield lease
                lease.forget_prefetched()
        finally:
            pool.shutdown(wait=True, cancel_futures=True)
            for lease in self._leases:
                lease.forget_prefetched()

    def save(self, folder: str | Path, begin: Callable[[str], None] | None = None) -> list[Path]:
        """Writes each case into a folder of its own below `folder`, to be worked on without the service.

        `begin` is told each case's id. `rekindle.offline.hand_in` sends the folder's labels later.
        """
        written: list[Path] = []
        for lease in self:
            if begin is not None:
                begin(lease.case.id)
            written.append(write_case(Path(folder), lease))
        write_session(Path(folder), self._description())
        return written

    def end(self) -> None:
        """Releases what is left; what another tool has resumed goes on. Ending it again changes nothing."""
        request = api.EndSessionRequest(
            request_id=new_request_id(),
            project_id=self._session.project_id,
            session_id=self.id,
            held=[api.HeldLease(lease_id=lease.id, fencing_token=lease.fencing_token) for lease in self._leases],
        )
        self._session = self._services.scheduler.EndSession(request).session

    def _description(self) -> dict[str, object]:
        return {
            "session_id": self.id,
            "minutes": self.minutes,
            "predicted_minutes": self.predicted_minutes,
            "detached": self.detached,
            "expires": self.expires.isoformat() if self.expires else None,
            "case_ids": [lease.case.id for lease in self.leases],
        }

    def __enter__(self) -> Session:
        return self

    def __exit__(self, *_: object) -> None:
        self.end()


def _is_live(lease: records.Lease) -> bool:
    return lease.state == records.LEASE_STATE_LIVE
