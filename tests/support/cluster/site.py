"""A hospital's site for a release: PostgreSQL, MinIO over TLS, and the Secrets that the installation page makes."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from certificates import Authority
from chart import CHART, DIGEST, helm
from rekindle.tokens import create_token
from servers.kubernetes import TOOLS
from servers.minio import ACCESS_KEY, SECRET_KEY, MinioServer
from servers.postgresql import PASSWORD, USER, PostgresqlServer
from servers.tools import ROOT

from cluster.services import Outside
from cluster.store import Manifest, Store

PAGE = ROOT / "docs" / "operations" / "install.md"
#: As the page calls them.
RELEASE = NAMESPACE = "rekindle"
#: What this machine has not got: GPUs, and room for two of everything.
HERE = {
    "inference": {"engine": "onnxruntime", "replicas": 1},
    "trainer": {
        "launcher": "kubernetes" if TOOLS.exists() else "process",
        "replicas": 1,
        "jobs": {"gpu": {"count": 0}},
    },
    "triton": {"enabled": False},
}


@dataclass(frozen=True)
class Site:
    """What runs outside the cluster, and how its Secrets were filled."""

    postgresql: PostgresqlServer
    minio: MinioServer
    outside: list[Outside]
    objects_authority: Path

    def fill(self, store: Store, folder: Path) -> dict[str, str]:
        """Make the Secrets and the ConfigMap that the page's commands and values name; file -> token."""
        urls = {f"{each}-url": self._url(each) for each in ("scheduler", "inference", "trainer")}
        store.put("Secret", "rekindle-database", urls)
        store.put("Secret", "rekindle-objects", {"access-key": ACCESS_KEY, "secret-key": SECRET_KEY})
        store.put("ConfigMap", "s3-ca", {"ca.crt": self.objects_authority.read_bytes()})
        folder.mkdir()
        authority = Authority(folder)
        issued = authority.issue("tls", *names_in_certificate())
        files = {"tls.crt": issued.certificate, "tls.key": issued.key, "ca.crt": authority.certificate}
        store.put("Secret", "rekindle-tls", {name: path.read_bytes() for name, path in files.items()})
        return put_callers(store, PAGE.read_text())

    def _url(self, service: str) -> str:
        database = self.postgresql.create_database().rpartition("/")[2]
        return f"postgresql://{USER}:{PASSWORD}@db.example.org:5432/{database}"


@contextmanager
def running_site(folder: Path) -> Iterator[Site]:
    """While inside."""
    certificates = folder / "s3-certificates"
    (certificates / "CAs").mkdir(parents=True)
    authority = Authority(folder, "s3-authority")
    issued = authority.issue("s3", "s3.example.org", "localhost", "127.0.0.1")
    issued.certificate.rename(certificates / "public.crt")
    issued.key.rename(certificates / "private.key")
    (certificates / "CAs" / "ca.crt").write_bytes(authority.certificate.read_bytes())
    with (
        PostgresqlServer(folder / "postgresql", durable=False) as postgresql,
        MinioServer(folder / "minio", certificates=certificates) as minio,
    ):
        minio.make_bucket("rekindle")
        # The addresses are those of the page's network policies.
        outside = [
            Outside("db.example.org", 5432, postgresql.port, "10.1.0.10"),
            Outside("s3.example.org", 443, minio.port, "10.1.0.20"),
        ]
        yield Site(postgresql, minio, outside, authority.certificate)


def put_callers(store: Store, text: str) -> dict[str, str]:
    """Tokens and Secrets as the commands in `text` make them; file -> token."""
    tokens: dict[str, str] = {}
    lines: list[str] = []
    for subject, options, file in re.findall(r"rekindle token create (\S+) (.*) --add-to \S+ > (\S+)$", text, re.M):
        made = create_token(subject, roles=re.findall(r"--role (\w+)", options))
        tokens[file] = made.token
        lines.append(made.line + "\n")
        for secret in re.findall(rf"secret generic (\S+) --from-file=token={file}$", text, re.M):
            store.put("Secret", secret, {"token": made.token + "\n"})
    (secret,) = re.findall(r"secret generic (\S+) --from-file=callers=callers.jsonl$", text, re.M)
    store.put("Secret", secret, {"callers": "".join(lines)})
    return tokens


def names_in_certificate() -> list[str]:
    """Those that the page says."""
    return sorted(set(re.findall(r"\brekindle-(?:scheduler|inference|trainer)\b(?:\.rekindle\.svc)?", _certificate())))


def _certificate() -> str:
    """The page's words on the certificate, up to the command that makes its Secret."""
    return PAGE.read_text().partition("# Certificate of the services")[2].partition("kubectl")[0]


def rendered(folder: Path, changes: Mapping[str, Any]) -> list[Manifest]:
    """The release with the page's values and with `changes`."""
    folder.mkdir(parents=True, exist_ok=True)
    page = re.findall(r"```yaml\n(.*?)```", PAGE.read_text(), re.DOTALL)[-1]
    (folder / "site.yaml").write_text(page.replace("sha256:...", DIGEST))
    (folder / "here.yaml").write_text(yaml.safe_dump(dict(changes)))
    return _template(f"--values={folder / 'site.yaml'}", f"--values={folder / 'here.yaml'}")


def rendered_evaluation() -> list[Manifest]:
    """With the profile's values and what the page's command sets beside them."""
    options = re.findall(r"--set \S+", PAGE.read_text().partition("## An evaluation")[2])
    return _template(
        f"--values={CHART / 'values-evaluation.yaml'}", *(word for each in options for word in each.split())
    )


def _template(*options: str) -> list[Manifest]:
    text = helm("template", RELEASE, str(CHART), "--namespace", NAMESPACE, *options)
    return [each for each in yaml.safe_load_all(text) if each]


def named(objects: Sequence[Manifest], kind: str, name: str) -> Any:
    (found,) = [each for each in objects if (each["kind"], each["metadata"]["name"]) == (kind, name)]
    return found
