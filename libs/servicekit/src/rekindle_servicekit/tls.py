"""TLS of a server: certificate, key and client authorities from files, read again when they are replaced."""

from __future__ import annotations

import logging
import ssl
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
from rekindle.errors import InvalidInput
from rekindle.watched_files import WatchedFiles

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class TlsFiles:
    """PEM files of a server."""

    #: The server's certificate, followed by its chain.
    certificate: Path
    key: Path
    #: Authorities of clients' certificates; given, every client must show one. gRPC cannot ask for them optionally.
    client_ca: Path | None = None

    @property
    def paths(self) -> tuple[Path, ...]:
        return tuple(path for path in (self.certificate, self.key, self.client_ca) if path is not None)


def server_credentials(files: TlsFiles) -> grpc.ServerCredentials:
    """Credentials that follow the files: connections made after a change get what is then in them.

    InvalidInput where they cannot be used at first; later such files leave the certificate in use, and the log
    says why.
    """
    reloader = _Reloader(files)
    return grpc.dynamic_ssl_server_credentials(
        _configuration(files), reloader.fetch, require_client_authentication=files.client_ca is not None
    )


class _Reloader:
    def __init__(self, files: TlsFiles) -> None:
        self._files = files
        self._watched = WatchedFiles(files.paths)

    def fetch(self) -> Any:
        """Asked by gRPC at each handshake, in a thread of its own: a new configuration, or None for no change."""
        if not self._watched.have_changed():
            return None
        try:
            configuration = _configuration(self._files)
        except InvalidInput as error:
            _log.error("the certificate in use stays: %s", error.message, extra={"action": "tls.not_reloaded"})
            self._watched.were_of_no_use()
            return None
        _log.info("the certificate was renewed", extra={"action": "tls.reloaded"})
        return configuration


def _configuration(files: TlsFiles) -> Any:
    before = WatchedFiles(files.paths)
    certificate, key = _read(files.certificate, "tls_certificate"), _read(files.key, "tls_key")
    client_ca = None if files.client_ca is None else _read(files.client_ca, "tls_client_ca")
    _check(files)
    if before.have_changed():
        raise InvalidInput("the TLS files are being replaced", reason="TLS_FILES_CHANGING")
    return grpc.ssl_server_certificate_configuration([(key, certificate)], root_certificates=client_ca)


def _read(path: Path, setting: str) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise InvalidInput(f"{setting}: {path} cannot be read: {error.strerror}", reason="TLS_FILE") from None


def _check(files: TlsFiles) -> None:
    """gRPC takes any bytes and then fails every handshake; OpenSSL says at once whether they fit together."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    try:
        # Without a password callback OpenSSL would ask on the terminal.
        context.load_cert_chain(files.certificate, files.key, password=lambda: "")
    except (OSError, ValueError) as error:
        raise InvalidInput(
            f"tls_certificate and tls_key do not fit together or are not PEM without a password ({_reason(error)})",
            reason="TLS_FILE",
        ) from None
    if files.client_ca is None:
        return
    try:
        context.load_verify_locations(files.client_ca)
    except (OSError, ValueError) as error:
        raise InvalidInput(f"tls_client_ca holds no PEM certificate ({_reason(error)})", reason="TLS_FILE") from None


def _reason(error: Exception) -> str:
    return getattr(error, "reason", None) or type(error).__name__
