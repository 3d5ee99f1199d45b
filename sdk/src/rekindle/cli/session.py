"""One invocation: the connection, the project that is meant, and the way to print."""

from __future__ import annotations

import sys
from collections.abc import Generator
from contextlib import contextmanager

from rekindle._call import UploadWay
from rekindle.cli.output import Output
from rekindle.client import Client
from rekindle.credentials import AccessOptions
from rekindle.errors import InvalidInput, NotFound
from rekindle.projects import Project


class Session:
    """Connects when a command first needs it."""

    def __init__(
        self,
        *,
        address: str,
        inference: str | None,
        trainer: str | None,
        access: AccessOptions | None = None,
        uploads: UploadWay = "auto",
    ) -> None:
        self._uploads: UploadWay = uploads
        self._addresses = (address, inference, trainer)
        self._access = access or AccessOptions()
        self._client: Client | None = None
        self.project_name: str | None = None
        self.as_json = False

    @property
    def client(self) -> Client:
        if self._client is None:
            address, inference, trainer = self._addresses
            self._client = Client.connect(
                address, inference=inference, trainer=trainer, uploads=self._uploads, **self._access
            )
        return self._client

    @property
    def out(self) -> Output:
        return Output(as_json=self.as_json)

    def project(self) -> Project:
        """The project named by --project, else the only one there is."""
        projects = list(self.client.projects())
        if self.project_name:
            return _named(projects, self.project_name)
        if not projects:
            raise NotFound("there is no project yet: make one with `rekindle project create`")
        if len(projects) > 1:
            names = ", ".join(repr(project.name) for project in projects)
            raise InvalidInput(f"there are {len(projects)} projects: say which with --project ({names})")
        return projects[0]

    def close(self) -> None:
        if self._client is not None:
            self._client.close()


def _named(projects: list[Project], name: str) -> Project:
    matching = [project for project in projects if project.id == name]
    matching = matching or [project for project in projects if project.name == name]
    if not matching:
        raise NotFound(f"there is no project {name!r}: `rekindle project list` shows those there are")
    if len(matching) > 1:
        ids = ", ".join(project.id for project in matching)
        raise InvalidInput(f"several projects are named {name!r}: give the id instead ({ids})")
    return matching[0]


@contextmanager
def interruptible() -> Generator[None]:
    """Around watching: Ctrl-C ends it as it should, not as an error."""
    try:
        yield
    except KeyboardInterrupt:
        print(file=sys.stderr)
