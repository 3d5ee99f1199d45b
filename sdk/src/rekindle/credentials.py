"""How a client knows the services, and proves to them who it is."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypedDict, Unpack

import grpc

from rekindle._channels import BearerToken, RenewedChannel
from rekindle.errors import InvalidInput
from rekindle.hosts import is_local_address
from rekindle.watched_files import WatchedFiles

#: Characters that a header may hold.
_TOKEN = re.compile(r"[\x21-\x7e]+")
_TRUE = {"1", "true", "yes", "on"}


class AccessOptions(TypedDict, total=False):
    """What `Client.connect` takes for its `Access`; each falls back to the environment."""

    tls: bool | None
    ca: str | Path | None
    certificate: str | Path | None
    key: str | Path | None
    server_name: str | None
    token: str | None
    token_file: str | Path | None
    insecure: bool | None


@dataclass(frozen=True, kw_only=True)
class Access:
    """TLS, a client certificate and a bearer token, each where it is given.

    Files are PEM; they and the token's file are read again when they change, so a client may live longer than
    its certificate or its token.
    """

    #: Speak TLS; implied by `ca` and `certificate`.
    tls: bool = False
    #: The authorities that the services' certificates come from; without it, those that gRPC brings along.
    ca: Path | None = None
    #: This client's own certificate with its chain, and its key, where the services ask for one.
    certificate: Path | None = None
    key: Path | None = None
    #: The name in the services' certificates, where it is not that of their address.
    server_name: str | None = None
    token: str | None = field(default=None, repr=False)
    #: File that holds nothing but the token.
    token_file: Path | None = None
    #: Send the token over plain text to other machines too.
    insecure: bool = False

    def __post_init__(self) -> None:
        if (self.certificate is None) != (self.key is None):
            raise InvalidInput("a client certificate and its key belong together: give both, or neither")
        if self.token is not None and self.token_file is not None:
            raise InvalidInput("give either a token or a token file, not both")
        if self.token is not None:
            _checked(self.token, "the token")

    @property
    def is_encrypted(self) -> bool:
        return self.tls or self.ca is not None or self.certificate is not None

    @property
    def has_token(self) -> bool:
        return self.token is not None or self.token_file is not None

    def channel(self, address: str, options: Sequence[tuple[str, Any]]) -> grpc.Channel:
        """A channel to `address`. InvalidInput for files that cannot be read, and for tokens in plain text."""
        self._check_exposure(address)
        channel = self._channel(address, list(options))
        return grpc.intercept_channel(channel, BearerToken(self._token_source())) if self.has_token else channel

    def _check_exposure(self, address: str) -> None:
        if self.is_encrypted or not self.has_token or self.insecure or is_local_address(address):
            return
        raise InvalidInput(
            f"the token would travel to {address} in plain text: use TLS (ca=..., --ca or REKINDLE_CA for a "
            "private authority, tls=True, --tls or REKINDLE_TLS=1 for a public one), or insecure=True where the "
            "network itself is trusted",
            reason="PLAIN_TEXT_TOKEN",
        )

    def _channel(self, address: str, options: list[tuple[str, Any]]) -> grpc.Channel:
        if not self.is_encrypted:
            return grpc.insecure_channel(address, options=options)
        if self.server_name:
            options = [*options, ("grpc.ssl_target_name_override", self.server_name)]

        def open_channel() -> grpc.Channel:
            return grpc.secure_channel(address, self._channel_credentials(), options=options)

        files = [path for path in (self.ca, self.certificate, self.key) if path is not None]
        return RenewedChannel(open_channel, WatchedFiles(files)) if files else open_channel()

    def _channel_credentials(self) -> grpc.ChannelCredentials:
        return grpc.ssl_channel_credentials(
            root_certificates=_read(self.ca, "the authorities' certificates (ca)"),
            private_key=_read(self.key, "the client's key"),
            certificate_chain=_read(self.certificate, "the client's certificate"),
        )

    def _token_source(self) -> Callable[[], str]:
        if self.token_file is None:
            token = self.token or ""
            return lambda: token
        return TokenFile(self.token_file)


class TokenFile:
    """The token in a file, read again when the file has changed."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._files = WatchedFiles([path])
        self._token = self._read()

    def __call__(self) -> str:
        """The token; the one of before while the file cannot be read."""
        if self._files.have_changed():
            try:
                self._token = self._read()
            except InvalidInput:
                # Where it is just being replaced, the service decides whether the old one still holds.
                self._files.were_of_no_use()
        return self._token

    def _read(self) -> str:
        try:
            text = self._path.read_text(encoding="ascii", errors="replace")
        except OSError as error:
            raise InvalidInput(f"the token file {self._path} cannot be read: {error.strerror}") from None
        return _checked(text.strip(), f"the token in {self._path}")


def from_environment(environment: Mapping[str, str] | None = None, **given: Unpack[AccessOptions]) -> Access | None:
    """What is given, and for the rest REKINDLE_TLS, _CA, _CERTIFICATE, _KEY, _SERVER_NAME, _TOKEN, _TOKEN_FILE.

    None where nothing is given or set at all: plain text without a token, as on one machine.
    """
    variables = os.environ if environment is None else environment
    found: dict[str, Any] = {
        name: variables.get(f"REKINDLE_{name.upper()}") or None
        for name in ("tls", "ca", "certificate", "key", "server_name", "token", "token_file", "insecure")
    }
    for name in ("tls", "insecure"):
        found[name] = str(found[name] or "").lower() in _TRUE
    if given.get("token") is not None or given.get("token_file") is not None:
        found["token"] = found["token_file"] = None
    found |= {name: value for name, value in given.items() if value is not None}
    for name in ("ca", "certificate", "key", "token_file"):
        found[name] = None if found[name] is None else Path(found[name])
    return Access(**found) if any(found.values()) else None


def _read(path: Path | None, what: str) -> bytes | None:
    if path is None:
        return None
    try:
        content = path.read_bytes()
    except OSError as error:
        raise InvalidInput(f"{what} cannot be read from {path}: {error.strerror}") from None
    if b"-----BEGIN " not in content:
        raise InvalidInput(f"{what} in {path} is not PEM: it must begin with -----BEGIN")
    return content


def _checked(token: str, what: str) -> str:
    if not _TOKEN.fullmatch(token):
        raise InvalidInput(f"{what} is empty or holds blanks or other characters that no token has")
    return token
