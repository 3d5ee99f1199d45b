"""The drill of docs/operations/backup-restore.md: PostgreSQL and MinIO, copied under work, taken back elsewhere."""

from __future__ import annotations

import io
import json
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from click.testing import CliRunner
from rekindle.cli.commands import rekindle
from rekindle_local.stack import Stack, StackOptions
from servers.minio import ACCESS_KEY, SECRET_KEY, MinioServer
from servers.postgresql import PostgresqlServer, programs
from small_campaign import begin, label_next, wait_for

#: In the order in which the page says to copy them.
SERVICES = ("scheduler", "trainer", "inference")


@dataclass(frozen=True)
class Backup:
    """What was copied while people worked, and a copy of the bucket that is older than it should be."""

    dumps: Mapping[str, Path]
    bucket: str
    old_bucket: str
    #: Labelled before the first dump, and after it.
    first_case: str
    second_case: str


@pytest.fixture(scope="module")
def backup(postgresql: PostgresqlServer, minio: MinioServer, tmp_path_factory: pytest.TempPathFactory) -> Backup:
    """One label before the backup, one between the dump of the scheduler's database and that of inference's."""
    folder = tmp_path_factory.mktemp("backup")
    urls = {service: postgresql.create_database() for service in SERVICES}
    bucket = minio.make_bucket(f"drill-{uuid4().hex}")
    dumps = {service: folder / f"{service}.dump" for service in SERVICES}
    with running(folder / "state", minio, urls, bucket) as stack, stack.client() as client:
        project = begin(client, folder, groups=["a", "b", "c"])
        old_bucket = copied(minio, bucket)
        first_case = label_next(project)
        wait_for(lambda: project.round(1).state == "closed", "round 1 does not close")
        dump(urls["scheduler"], dumps["scheduler"])
        second_case = label_next(project)
        for service in ("trainer", "inference"):
            dump(urls[service], dumps[service])
        return Backup(dumps, copied(minio, bucket), old_bucket, first_case, second_case)


def test_a_backup_in_the_right_order_is_whole(
    backup: Backup, postgresql: PostgresqlServer, minio: MinioServer, tmp_path: Path
) -> None:
    """Databases first, then the bucket: every row has its bytes, what came after the dump is undone, work goes on."""
    urls = restored(postgresql, backup)
    with running(tmp_path / "state", minio, urls, backup.bucket) as stack, stack.client() as client:
        code, answer = verify(stack, "--deep")
        assert [] == [found for found in answer["findings"] if found["kind"] != "orphaned"]
        assert 0 == code
        assert answer["bytes_read"] > 0
        (project,) = client.projects()
        states = {case.id: case.state for case in project.cases()}
        assert "labelled" == states[backup.first_case]
        assert "labelled" != states[backup.second_case]
        wait_for(lambda: label_next(project) == backup.second_case, "the undone label cannot be made again")


def test_a_bucket_that_is_older_than_the_databases_is_found_out(
    backup: Backup, postgresql: PostgresqlServer, minio: MinioServer, tmp_path: Path
) -> None:
    """The wrong order: the label as it was sent is missing, and so is what was trained on it."""
    urls = restored(postgresql, backup)
    with running(tmp_path / "state", minio, urls, backup.old_bucket) as stack:
        code, answer = verify(stack)
    assert 1 == code
    missing = {found["where"].split("/")[0] for found in answer["findings"] if found["kind"] == "missing"}
    assert {"volumes", "packages", "weights"} <= missing


def running(state: Path, minio: MinioServer, urls: Mapping[str, str], bucket: str) -> Stack:
    environment = {f"REKINDLE_{service.upper()}_DATABASE_URL": url for service, url in urls.items()}
    store = {"URL": f"s3://{bucket}", "ENDPOINT": minio.url, "ACCESS_KEY": ACCESS_KEY, "SECRET_KEY": SECRET_KEY}
    for service in ("INFERENCE", "TRAINER"):
        environment |= {f"REKINDLE_{service}_OBJECTS_{name}": value for name, value in store.items()}
    return Stack(StackOptions(state=state, port=0, installation_id="hospital-a", environment=environment))


def dump(url: str, file: Path) -> None:
    command = [programs() / "pg_dump", "--format=custom", "--no-owner", f"--file={file}", url]
    subprocess.run(command, check=True)


def restored(postgresql: PostgresqlServer, backup: Backup) -> dict[str, str]:
    """URLs of new databases that hold what was dumped."""
    urls = {service: postgresql.create_database() for service in SERVICES}
    for service, url in urls.items():
        command = [programs() / "pg_restore", "--no-owner", "--exit-on-error", f"--dbname={url}"]
        subprocess.run([*command, backup.dumps[service]], check=True)
    return urls


def copied(minio: MinioServer, bucket: str) -> str:
    """A bucket with the same keys and bytes, and nothing else of its objects, as the plainest of tools copies."""
    client, other = minio.client(), minio.make_bucket(f"drill-{uuid4().hex}")
    for each in client.list_objects(bucket, recursive=True):
        answer = client.get_object(bucket, each.object_name)
        try:
            data = answer.read()
        finally:
            answer.close()
            answer.release_conn()
        client.put_object(other, each.object_name, io.BytesIO(data), len(data))
    return other


def verify(stack: Stack, *options: str) -> tuple[int, dict[str, Any]]:
    addresses = {f"REKINDLE_{name.upper()}": address for name, address in stack.addresses.items()}
    environment = {**addresses, "REKINDLE_ADDRESS": stack.addresses["scheduler"]}
    done = CliRunner().invoke(rekindle, ["verify", "--json", *options], env=environment, catch_exceptions=False)
    return done.exit_code, json.loads(done.stdout)
