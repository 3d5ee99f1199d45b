"""Which object store the settings ask for: a directory, or a bucket of MinIO or any S3."""

from __future__ import annotations

import re
from pathlib import Path
from urllib.parse import unquote, urlsplit

from pydantic import Field, SecretStr
from rekindle.errors import FieldViolation, InvalidInput

from rekindle_servicekit.objects import DirectoryObjects, Objects, PrefixedObjects
from rekindle_servicekit.settings import ServiceSettings

#: Names that every S3 takes.
_BUCKET = re.compile(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]")


class ObjectStoreSettings(ServiceSettings):
    """Settings of the object store; all of its users share one."""

    objects_url: str = Field(
        "", description="object store: file:///directory or s3://bucket/prefix; empty for objects_directory"
    )
    objects_endpoint: str = Field(
        "", description="of an s3:// store, https://host:port; empty for Amazon's in objects_region"
    )
    objects_public_endpoint: str = Field(
        "", description="the same as clients reach it, for presigned addresses; empty for objects_endpoint"
    )
    objects_region: str = Field("us-east-1", description="region of an s3:// store")
    objects_access_key: SecretStr = Field(SecretStr(""), description="who asks an s3:// store")
    objects_secret_key: SecretStr = Field(SecretStr(""), description="the secret of objects_access_key")
    objects_ca_file: Path | None = Field(
        None, description="PEM file of authorities that an s3:// store's certificate is checked with"
    )
    objects_encryption: str = Field(
        "", description="how an s3:// store is to encrypt: s3, or kms:KEY; empty for what the bucket does by itself"
    )
    objects_connect_timeout_s: float = Field(5.0, gt=0, description="seconds to reach an s3:// store")
    objects_read_timeout_s: float = Field(30.0, gt=0, description="seconds that an s3:// store may be silent")
    objects_total_timeout_s: float = Field(600.0, gt=0, description="seconds that one object may take to come or go")


def open_store(settings: ObjectStoreSettings, directory: Path) -> Objects:
    """The store of `objects_url`; where that is empty, `directory`. InvalidInput names the setting that is wrong.

    A bucket is not asked for anything yet: it may be away when a service starts.
    """
    url = urlsplit(settings.objects_url)
    if not settings.objects_url:
        return DirectoryObjects(directory)
    if url.scheme == "file" and url.netloc in ("", "localhost") and url.path.startswith("/"):
        return DirectoryObjects(Path(unquote(url.path)))
    if url.scheme == "s3" and _BUCKET.fullmatch(url.netloc):
        bucket, prefix = _bucket(settings, url.netloc), url.path.strip("/")
        return PrefixedObjects(bucket, prefix) if prefix else bucket
    raise _wrong("objects_url", "use file:///directory or s3://bucket/prefix, bucket in a-z, 0-9, . and -")


def is_bucket(settings: ObjectStoreSettings) -> bool:
    """Whether the store is another machine's, with addresses of its own."""
    return settings.objects_url.startswith("s3://")


def _bucket(settings: ObjectStoreSettings, bucket: str) -> Objects:
    # Imported only where it is used: the library is an extra.
    from rekindle_servicekit.s3 import S3Objects, S3Options

    for name in ("objects_access_key", "objects_secret_key"):
        if not getattr(settings, name).get_secret_value():
            raise _wrong(name, "is needed for an s3:// store")
    if settings.objects_ca_file is not None and not settings.objects_ca_file.is_file():
        raise _wrong("objects_ca_file", "there is no such file")
    return S3Objects(
        S3Options(
            endpoint=settings.objects_endpoint or f"https://s3.{settings.objects_region}.amazonaws.com",
            bucket=bucket,
            access_key=settings.objects_access_key.get_secret_value(),
            secret_key=settings.objects_secret_key.get_secret_value(),
            region=settings.objects_region,
            ca_file=settings.objects_ca_file,
            encryption=settings.objects_encryption,
            public_endpoint=settings.objects_public_endpoint,
            connect_timeout_s=settings.objects_connect_timeout_s,
            read_timeout_s=settings.objects_read_timeout_s,
            total_timeout_s=settings.objects_total_timeout_s,
        )
    )


def _wrong(name: str, what: str) -> InvalidInput:
    return InvalidInput(
        f"wrong settings: {name.upper()}: {what}", reason="INVALID_SETTING", violations=[FieldViolation(name, what)]
    )
