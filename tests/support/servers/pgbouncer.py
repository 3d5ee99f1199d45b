"""PgBouncer in transaction mode: each transaction may run on another connection to PostgreSQL."""

from __future__ import annotations

import shutil
from pathlib import Path

import psycopg

from servers.postgresql import PASSWORD, USER, PostgresqlServer
from servers.process import ServerProcess
from servers.tools import TOOLS, installed


class PgbouncerServer(ServerProcess):
    """A pooler with few connections in front of a PostgreSQL."""

    name = "pgbouncer"

    def __init__(self, folder: Path, behind: PostgresqlServer, *, pool_size: int = 3) -> None:
        super().__init__(folder)
        self._behind = behind
        self._pool_size = pool_size

    def command(self) -> list[str]:
        installed("pgbouncer")
        users, config = self._behind.home / "users.txt", self._behind.home / "pgbouncer.ini"
        users.write_text(f'"{USER}" "{PASSWORD}"\n')
        config.write_text(
            "[databases]\n"
            f"* = host=127.0.0.1 port={self._behind.port}\n"
            "[pgbouncer]\n"
            f"listen_addr = 127.0.0.1\nlisten_port = {self.port}\nunix_socket_dir =\n"
            f"auth_type = scram-sha-256\nauth_file = {users}\n"
            f"pool_mode = transaction\ndefault_pool_size = {self._pool_size}\nmax_client_conn = 200\n"
        )
        return [self._program(), str(config)]

    def account(self) -> str | None:
        return self._behind.account()

    def is_ready(self) -> bool:
        try:
            psycopg.connect(self._behind.url(port=self.port), connect_timeout=5).close()
        except psycopg.OperationalError:
            return False
        return True

    def url(self, database: str) -> str:
        return self._behind.url(database, port=self.port)

    def _program(self) -> str:
        own = TOOLS / "pgbouncer" / "run"
        return str(own) if own.exists() else shutil.which("pgbouncer") or "pgbouncer"
