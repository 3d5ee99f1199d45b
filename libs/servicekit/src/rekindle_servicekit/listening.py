"""How every service listens: the settings that they share, and what is made of them."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

from pydantic import Field
from rekindle.errors import InvalidInput, Unauthenticated
from rekindle.hosts import is_local_address
from rekindle.tokens import ROLE_NAMES

from rekindle_servicekit.callers import Callers, CallersFile
from rekindle_servicekit.identity import Authenticator, Caller, LoopbackAuthenticator
from rekindle_servicekit.principal import Principal
from rekindle_servicekit.server import ServerOptions
from rekindle_servicekit.settings import ServiceSettings
from rekindle_servicekit.tls import TlsFiles, server_credentials


class ListenSettings(ServiceSettings):
    """Settings of a service's server; each service gives its own default addresses."""

    address: str = Field("127.0.0.1:0", description="where to listen: host:port or unix:path; port 0 takes a free one")
    health_address: str | None = Field(
        "127.0.0.1:0", description="where health alone is answered in plain text; empty for nowhere"
    )
    metrics_address: str | None = Field(
        None, description="host:port where Prometheus finds /metrics, over plain HTTP; empty for nowhere"
    )
    tls_certificate: Path | None = Field(
        None, description="PEM file of the server's certificate and chain; with it the service speaks TLS"
    )
    tls_key: Path | None = Field(None, description="PEM file of the certificate's key, without a password")
    tls_client_ca: Path | None = Field(
        None, description="PEM file of authorities; with it every client must show a certificate of theirs"
    )
    callers_file: Path | None = Field(
        None, description="file of the tokens and certificate names that may call, one JSON object a line"
    )
    certificate_roles: str = Field(
        "", description="roles of clients whose certificate no line of callers_file names, with commas; empty: none"
    )
    insecure: bool = Field(False, description="allow plain text beyond the loopback interface")
    reflection: bool = Field(True, description="answer gRPC server reflection")
    require_deadline: bool = Field(False, description="refuse calls that have no deadline")
    grace_s: float = Field(10.0, ge=0, description="seconds that calls may still run after a signal to stop")
    port_file: Path | None = Field(None, description="file to write the addresses taken to, as JSON")
    log_level: str = Field("INFO", description="DEBUG, INFO, WARNING or ERROR")


def server_options(settings: ListenSettings) -> ServerOptions:
    """InvalidInput where the settings contradict each other or their files cannot be used."""
    files = _tls_files(settings)
    if settings.callers_file is None and settings.tls_client_ca is None:
        _refuse_nobody(settings)
    return ServerOptions(
        address=settings.address,
        health_address=settings.health_address or None,
        metrics_address=settings.metrics_address or None,
        insecure=settings.insecure,
        credentials=None if files is None else server_credentials(files),
        reflection=settings.reflection,
        require_deadline=settings.require_deadline,
        grace_s=settings.grace_s,
        port_file=settings.port_file,
    )


def make_authenticator(settings: ListenSettings) -> Authenticator:
    """Who is let in: the callers of the file and the certificates; the local user where neither is configured."""
    roles = frozenset(filter(None, (role.strip() for role in settings.certificate_roles.split(","))))
    if unknown := roles - set(ROLE_NAMES):
        raise InvalidInput(f"certificate_roles: {', '.join(sorted(unknown))}: choose from {', '.join(ROLE_NAMES)}")
    if settings.callers_file is None and settings.tls_client_ca is None:
        return LoopbackAuthenticator()
    if settings.callers_file is None and not roles:
        raise InvalidInput(
            "tls_client_ca is set and nobody could call: name the callers in callers_file, or give all "
            "certificates roles by certificate_roles",
            reason="NO_CALLERS",
        )
    return CallersAuthenticator(settings.callers_file and CallersFile(settings.callers_file), roles)


class CallersAuthenticator:
    """Callers by bearer token, else by client certificate.

    A token says more than the certificate of the connection, which may be a gateway's: where both are there the
    token counts.
    """

    def __init__(self, file: CallersFile | None, certificate_roles: frozenset[str] = frozenset()) -> None:
        self._file = file
        self._certificate_roles = certificate_roles

    async def authenticate(self, caller: Caller) -> Principal:
        callers = self._file.current() if self._file else Callers()
        now = datetime.now(UTC)
        header = caller.metadata.get("authorization")
        if header is not None:
            return callers.by_token(_bearer(header), now)
        if caller.certificate_names:
            return callers.by_certificate(caller.certificate_names, now) or self._by_roles(caller.certificate_names)
        raise Unauthenticated(
            "the call carries no token: give one (token=, --token-file or REKINDLE_TOKEN_FILE)", reason="NO_CREDENTIALS"
        )

    def _by_roles(self, names: tuple[str, ...]) -> Principal:
        if not self._certificate_roles:
            raise Unauthenticated(
                "no caller is known by this client certificate: an administrator must name it in callers_file",
                reason="UNKNOWN_CERTIFICATE",
            )
        return Principal(issuer="mtls", subject=names[0], display_name=names[0], roles=self._certificate_roles)


def _bearer(header: str | bytes) -> str:
    scheme, _, token = (header if isinstance(header, str) else "").partition(" ")
    if scheme.lower() != "bearer" or not token:
        raise Unauthenticated("the header authorization must be: Bearer <token>", reason="NO_BEARER_TOKEN")
    return token.strip()


def _tls_files(settings: ListenSettings) -> TlsFiles | None:
    if (settings.tls_certificate is None) != (settings.tls_key is None):
        raise InvalidInput("tls_certificate and tls_key belong together: set both, or neither")
    if settings.tls_certificate is None or settings.tls_key is None:
        if settings.tls_client_ca is not None:
            raise InvalidInput("tls_client_ca needs the server's own tls_certificate and tls_key")
        return None
    return TlsFiles(certificate=settings.tls_certificate, key=settings.tls_key, client_ca=settings.tls_client_ca)


def _refuse_nobody(settings: ListenSettings) -> None:
    if settings.insecure or is_local_address(settings.address):
        return
    raise InvalidInput(
        f"address {settings.address} can be reached from other machines and no caller is known: set callers_file "
        "(`rekindle token create` makes its lines) or tls_client_ca, or listen on 127.0.0.1",
        reason="NO_CALLERS",
    )
