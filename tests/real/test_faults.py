"""PostgreSQL and MinIO killed, cut off and filled up under the running loop: nothing is lost, nothing happens twice."""

from __future__ import annotations

import errno
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import pytest
from phantom import Phantom
from rekindle._call import Retry
from rekindle.client import Client
from rekindle.config import Organ
from rekindle.errors import DependencyUnavailable
from rekindle.projects import Project
from rekindle_local.stack import Stack, StackOptions
from servers.minio import ACCESS_KEY, SECRET_KEY, MinioServer
from servers.postgresql import PostgresqlServer
from servers.proxy import Proxy
from small_campaign import Ending, campaign

pytestmark = pytest.mark.timeout(900)
#: Long enough for several tries of everything, short enough for the SDK's patience.
AWAY_S = 2.0
NAMES = {"postgresql": "the database", "minio": "the object store"}


class World:
    """The three services on PostgreSQL and MinIO, with lines in between that can be cut."""

    def __init__(self, folder: Path, resources: ExitStack, *, minio: MinioServer | None = None) -> None:
        self.servers: dict[str, PostgresqlServer | MinioServer] = {
            "postgresql": resources.enter_context(PostgresqlServer(folder / "postgresql")),
            "minio": resources.enter_context(minio or MinioServer(folder / "minio")),
        }
        #: Its thread outlives the servers that it starts, which end with whoever started them.
        self.helper = resources.enter_context(ThreadPoolExecutor(1))
        self.lines = {name: resources.enter_context(Proxy(server.port)) for name, server in self.servers.items()}
        self.minio.make_bucket("rekindle")
        options = StackOptions(state=folder / "stack", port=0, environment=self._settings())
        self.stack = resources.enter_context(Stack(options))
        self.client = resources.enter_context(self.connect(attempts=20))

    @property
    def minio(self) -> MinioServer:
        server = self.servers["minio"]
        assert isinstance(server, MinioServer)
        return server

    def connect(self, *, attempts: int) -> Client:
        """A client that tries so often in all."""
        addresses = self.stack.addresses
        return Client.connect(
            addresses["scheduler"],
            inference=addresses["inference"],
            trainer=addresses["trainer"],
            retry=Retry(attempts=attempts),
            uploads="stream",
        )

    def break_down(self, name: str, how: str) -> None:
        """SIGKILL to a server, or an end to all connections with it."""
        self.servers[name].kill() if how == "kill" else self.lines[name].cut()

    def heal(self, name: str, how: str) -> None:
        self.servers[name].start() if how == "kill" else self.lines[name].heal()

    def _settings(self) -> dict[str, str]:
        postgresql = self.servers["postgresql"]
        assert isinstance(postgresql, PostgresqlServer)
        settings = {
            f"REKINDLE_{service}_DATABASE_URL": postgresql.create_database().replace(
                f":{postgresql.port}/", f":{self.lines['postgresql'].port}/"
            )
            for service in ("SCHEDULER", "INFERENCE", "TRAINER")
        }
        store = {
            "URL": "s3://rekindle/installation",
            "ENDPOINT": f"http://127.0.0.1:{self.lines['minio'].port}",
            "ACCESS_KEY": ACCESS_KEY,
            "SECRET_KEY": SECRET_KEY,
        }
        for service in ("INFERENCE", "TRAINER"):
            settings |= {f"REKINDLE_{service}_OBJECTS_{name}": value for name, value in store.items()}
        return settings


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    with ExitStack() as resources:
        yield World(tmp_path, resources)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Ending:
    """The campaign as it ends when nothing breaks."""
    folder = tmp_path_factory.mktemp("undisturbed")
    with ExitStack() as resources:
        return campaign(World(folder, resources).client, folder / "files", lambda _stage, _project: None)


@pytest.mark.parametrize(
    ("name", "how", "stage"),
    [
        ("postgresql", "kill", "annotating"),
        ("postgresql", "cut", "training"),
        ("minio", "cut", "annotating"),
        ("minio", "kill", "training"),
    ],
)
def test_a_fault_changes_nothing_about_the_end(
    world: World, undisturbed: Ending, tmp_path: Path, name: str, how: str, stage: str
) -> None:
    """Meanwhile whoever asks is told UNAVAILABLE and what is away; then all goes on by itself to the same end."""
    told: list[str] = []
    # What is stored already would be answered from the database.
    unknown = Phantom().file(tmp_path, voxels=np.roll(Phantom().image, 9, axis=1))
    healings: list[Future[None]] = []

    def heal_later() -> None:
        time.sleep(AWAY_S)
        world.heal(name, how)

    def disturb(now: str, project: Project) -> None:
        if now != stage:
            return
        same = impatient.project(project.id)
        world.break_down(name, how)
        told.extend(what_is_told(same, unknown))
        # What comes next meets the fault and the healing on its way.
        healings.append(world.helper.submit(heal_later))

    with world.connect(attempts=1) as impatient:
        ending = campaign(world.client, tmp_path / "files", disturb)
    for healing in healings:
        healing.result()
    assert undisturbed == ending
    assert told
    assert all(NAMES[name] in message for message in told)


def what_is_told(project: Project, file: Path) -> list[str]:
    """The errors of a call that needs the database and of one that needs the object store too, where there are any."""
    told: list[str] = []
    for ask in (project.refresh, lambda: project.upload_image(file, modality="CT")):
        try:
            ask()
        except DependencyUnavailable as error:
            told.append(str(error))
    return told


def test_a_full_store_is_named_and_leaves_nothing(tmp_path: Path) -> None:
    """UNAVAILABLE that says so, no volume and no upload; once there is room the same file is taken."""
    with ExitStack() as resources:
        minio = MinioServer(tmp_path / "minio", disk_bytes=64 * 1024 * 1024)
        world = World(tmp_path, resources, minio=minio)
        project = world.client.create_project("full", [Organ("liver", 6)])
        file = Phantom().file(tmp_path)
        project.upload_image(file, modality="CT")
        before = keys_of(world)
        filler = fill_up(minio.disk)
        other = np.roll(Phantom().image, 5, axis=1)
        second = Phantom().file(tmp_path, "image", voxels=other)
        with (
            world.connect(attempts=1) as client,
            pytest.raises(DependencyUnavailable, match="the object store is full"),
        ):
            client.project(project.id).upload_image(second, modality="CT")
        filler.unlink()
        assert before == keys_of(world)
        assert world.stack.dead_services() == []
        project.upload_image(second, modality="CT")
        assert len(before) < len(keys_of(world))


def fill_up(disk: Path) -> Path:
    """A file that leaves no room; removing it makes room at once."""
    filler = disk / "filler"
    with filler.open("wb", buffering=0) as stream:
        try:
            while True:
                stream.write(bytes(64 * 1024))
        except OSError as error:
            if error.errno != errno.ENOSPC:
                raise
    return filler


def keys_of(world: World) -> set[str]:
    return {each.object_name for each in world.minio.client().list_objects("rekindle", recursive=True)}
