"""Buckets of the real servers through the product's adapter."""

from __future__ import annotations

from typing import Any
from uuid import uuid4

from rekindle_servicekit.s3 import S3Objects, S3Options

from servers.minio import ACCESS_KEY, SECRET_KEY, MinioServer
from servers.seaweedfs import SeaweedfsServer


def options_of(server: MinioServer | SeaweedfsServer, bucket: str, **changes: Any) -> S3Options:
    """As a service would have them from its settings, with the time-outs of a test."""
    usual = {
        "endpoint": server.url,
        "bucket": bucket,
        "access_key": ACCESS_KEY,
        "secret_key": SECRET_KEY,
        "connect_timeout_s": 2.0,
        "read_timeout_s": 10.0,
    }
    return S3Options(**{**usual, **changes})


def bucket_of(server: MinioServer | SeaweedfsServer, **changes: Any) -> S3Objects:
    """A new, empty bucket."""
    return S3Objects(options_of(server, server.make_bucket(f"test-{uuid4().hex}"), **changes))
