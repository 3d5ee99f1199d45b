"""Other ways to install the chart, run like the one of the installation page."""

from __future__ import annotations

from pathlib import Path

import pytest
from cluster.container import why_not
from cluster.node import Node
from cluster.release import Release
from cluster.services import Outside
from cluster.site import NAMESPACE, PAGE, Site, named, put_callers, rendered, rendered_evaluation
from cluster.store import Manifest
from servers.minio import ACCESS_KEY, SECRET_KEY, MinioServer
from servers.postgresql import PASSWORD

pytestmark = pytest.mark.skipif(bool(why_not()), reason=why_not())
SERVICES = ("scheduler", "inference", "trainer")


def test_certificates_and_triton_will_do(site: Site, tmp_path: Path) -> None:
    """Without any token: everybody shows the certificate of the page's Secret, and what all may do is in the values.

    Triton finds its models in the object store, whose authority is private, and inference finds Triton. Before
    inference has prepared their place Triton ends, and begins again at once.
    """
    changes = {
        "scheduler": {"replicas": 1},
        "inference": {"replicas": 1},
        "trainer": {"launcher": "process", "replicas": 1},
        "triton": {"gpu": {"count": 0}},
        "auth": {"existingSecret": "", "serviceTokenSecret": ""},
        "tests": {"tokenSecret": ""},
        "tls": {"requireClientCertificate": True, "certificateRoles": "service,operator,annotator"},
    }
    node = Node(tmp_path / "pods", NAMESPACE, site.outside, restarts="triton")
    try:
        site.fill(node.store, tmp_path / "tls")
        release = Release(node, rendered(tmp_path / "values", changes))
        release.install()
        assert "self-test passed" in release.test()
        assert [] == node.services.denied
    finally:
        node.close()


def test_the_evaluation_profile_labels_too(site: Site, minio: MinioServer, tmp_path: Path) -> None:
    """As the page says: plain text within the cluster, PostgreSQL and MinIO by the names of its Services."""
    objects = rendered_evaluation()
    minio.make_bucket("rekindle")
    for statement in named(objects, "ConfigMap", "rekindle-postgresql")["data"]["databases.sql"].split(";")[:-1]:
        site.postgresql.execute(statement)
    _use_servers_here(named(objects, "Secret", "rekindle-evaluation")["stringData"])
    servers = {"rekindle-postgresql": site.postgresql.port, "rekindle-minio": minio.port}
    outside = [_stand_in(named(objects, "StatefulSet", name), port) for name, port in servers.items()]
    node = Node(tmp_path / "pods", NAMESPACE, outside)
    try:
        put_callers(node.store, PAGE.read_text())
        release = Release(node, objects, skips=list(servers))
        release.install()
        assert "self-test passed" in release.test()
        release.uninstall()
        assert [] == node.services.denied
    finally:
        node.close()


def _use_servers_here(secret: dict[str, str]) -> None:
    """As where an earlier installation has left its Secret, whose passwords the chart keeps."""
    made_up = secret["postgresql-password"]
    for key in SERVICES:
        secret[f"{key}-url"] = secret[f"{key}-url"].replace(f":{made_up}@", f":{PASSWORD}@")
    secret |= {"postgresql-password": PASSWORD, "access-key": ACCESS_KEY, "secret-key": SECRET_KEY}


def _stand_in(owner: Manifest, real_port: int) -> Outside:
    """A server of this machine in place of a StatefulSet's pod."""
    template = owner["spec"]["template"]
    (port,) = template["spec"]["containers"][0]["ports"]
    name, number = owner["metadata"]["name"], port["containerPort"]
    return Outside(name, number, real_port, labels=template["metadata"]["labels"], ports={port["name"]: number})
