"""TLS and client certificates over a real server, and certificates that are replaced while it runs."""

from __future__ import annotations

import asyncio
import hashlib
import ssl
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import grpc
import pytest
from certificates import Authority, Files
from grpc_health.v1 import health_pb2, health_pb2_grpc
from rekindle.credentials import Access
from rekindle.errors import InvalidInput
from rekindle_servicekit import context
from rekindle_servicekit.listening import CallersAuthenticator
from rekindle_servicekit.server import ServerOptions
from rekindle_servicekit.tls import TlsFiles, server_credentials

Stack = Callable[..., Any]
_METHOD = "/rekindle.tests.Echo/unary_unary"


async def _echo(request: bytes, _: Any) -> bytes:
    return request


async def _who(request: bytes, _: Any) -> bytes:
    principal = context.principal()
    return f"{principal.issuer} {principal.subject}".encode()


def _options(server: Files, client_ca: Path | None = None) -> ServerOptions:
    files = TlsFiles(certificate=server.certificate, key=server.key, client_ca=client_ca)
    return ServerOptions(credentials=server_credentials(files))


def _call(access: Access, address: str) -> bytes:
    with access.channel(address, []) as channel:
        return channel.unary_unary(_METHOD)(b"x", timeout=5)


def _presented(address: str) -> str:
    """SHA-256 of the certificate that the server shows now, by another TLS implementation."""
    host, _, port = address.rpartition(":")
    pem = ssl.get_server_certificate((host, int(port)), timeout=5)
    return hashlib.sha256(ssl.PEM_cert_to_DER_cert(pem)).hexdigest()


def _digest(files: Files) -> str:
    first = files.certificate.read_text().split("-----END CERTIFICATE-----")[0] + "-----END CERTIFICATE-----\n"
    return hashlib.sha256(ssl.PEM_cert_to_DER_cert(first)).hexdigest()


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


def test_calls_over_tls(stack: Stack, authority: Authority) -> None:
    """With the authority given the call goes through; plain text, and other authorities, do not."""
    stranger = Authority(authority.certificate.parent, "stranger")

    async def scenario() -> list[Any]:
        async with stack(_echo, _options(authority.issue_server())) as running:
            outcomes: list[Any] = []
            for access in (Access(ca=authority.certificate), Access(), Access(ca=stranger.certificate)):
                try:
                    outcomes.append(await asyncio.to_thread(_call, access, running.server.address))
                except grpc.RpcError as failure:
                    outcomes.append(failure.code())
            return outcomes

    assert [b"x", grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.UNAVAILABLE] == asyncio.run(scenario())


def test_name_in_the_certificate_counts(stack: Stack, authority: Authority) -> None:
    """A certificate of another host is refused, unless the client says that this is the name it expects."""

    async def scenario() -> tuple[Any, bytes]:
        async with stack(_echo, _options(authority.issue("server", "rekindle.example"))) as running:
            with pytest.raises(grpc.RpcError) as caught:
                await asyncio.to_thread(_call, Access(ca=authority.certificate), running.server.address)
            named = Access(ca=authority.certificate, server_name="rekindle.example")
            return caught.value.code(), await asyncio.to_thread(_call, named, running.server.address)

    assert (grpc.StatusCode.UNAVAILABLE, b"x") == asyncio.run(scenario())


def test_health_port_stays_plain(stack: Stack, authority: Authority) -> None:
    """Probes need neither TLS nor a client certificate."""

    async def scenario() -> int:
        async with (
            stack(_echo, _options(authority.issue_server(), authority.certificate)) as running,
            grpc.aio.insecure_channel(running.server.health_address) as channel,
        ):
            reply = await health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(), timeout=5)
            return reply.status

    assert health_pb2.HealthCheckResponse.SERVING == asyncio.run(scenario())


def test_client_certificates_are_required_and_name_the_caller(stack: Stack, authority: Authority) -> None:
    """With an authority for clients set, who shows no certificate of it is not connected; others are its name."""
    stranger = Authority(authority.certificate.parent, "stranger")
    ann, evil = authority.issue("ann", "ann@example.org"), stranger.issue("evil", "ann@example.org")
    authenticator = CallersAuthenticator(None, frozenset({"annotator"}))
    options = _options(authority.issue_server(), authority.certificate)

    async def scenario() -> list[Any]:
        async with stack(_who, options, authenticator) as running:
            outcomes: list[Any] = []
            for files in (ann, evil, None):
                shown = {"certificate": files.certificate, "key": files.key} if files else {}
                access = Access(ca=authority.certificate, **shown)
                try:
                    outcomes.append(await asyncio.to_thread(_call, access, running.server.address))
                except grpc.RpcError as failure:
                    outcomes.append(failure.code())
            return outcomes

    unavailable = grpc.StatusCode.UNAVAILABLE
    assert [b"mtls ann@example.org", unavailable, unavailable] == asyncio.run(scenario())


def test_server_follows_its_certificate(stack: Stack, authority: Authority) -> None:
    """After the files were replaced new connections get the new certificate; those that are open go on."""
    files = authority.issue_server()
    old = _digest(files)

    async def scenario() -> tuple[str, str, bytes]:
        async with stack(_echo, _options(files)) as running:
            credentials = grpc.ssl_channel_credentials(authority.certificate.read_bytes())
            async with grpc.aio.secure_channel(running.server.address, credentials) as channel:
                await channel.unary_unary(_METHOD)(b"x", timeout=5)
                before = await asyncio.to_thread(_presented, running.server.address)
                authority.issue_server(into=files)
                after = await asyncio.to_thread(_presented, running.server.address)
                return before, after, await channel.unary_unary(_METHOD)(b"y", timeout=5)

    before, after, answer = asyncio.run(scenario())
    assert (old, _digest(files), b"y") == (before, after, answer)
    assert old != after


def test_server_keeps_its_certificate_when_the_new_one_is_wrong(
    stack: Stack, authority: Authority, caplog: pytest.LogCaptureFixture
) -> None:
    """A key that does not fit leaves the certificate in use, and the log says so; a good one is then taken."""
    files = authority.issue_server()
    first = _digest(files)
    good_key = files.key

    async def scenario() -> list[str]:
        async with stack(_echo, _options(files)) as running:
            address = running.server.address
            other = authority.issue_server("other")
            good_key.write_bytes(other.key.read_bytes())
            broken = await asyncio.to_thread(_presented, address)
            authority.issue_server(into=files)
            return [broken, await asyncio.to_thread(_presented, address)]

    presented = asyncio.run(scenario())
    assert [first, _digest(files)] == presented
    assert ["tls.not_reloaded"] == [vars(r)["action"] for r in caplog.records if r.levelname == "ERROR"]


def test_client_authorities_are_followed_too(stack: Stack, authority: Authority) -> None:
    """A client authority that is taken out of the file lets nobody in any more."""
    newer = Authority(authority.certificate.parent, "newer")
    accepted = authority.certificate.with_name("accepted.pem")
    accepted.write_bytes(authority.certificate.read_bytes())
    ann = authority.issue("ann", "ann@example.org")
    access = Access(ca=authority.certificate, certificate=ann.certificate, key=ann.key)
    authenticator = CallersAuthenticator(None, frozenset({"annotator"}))

    async def scenario() -> tuple[bytes, grpc.StatusCode]:
        async with stack(_echo, _options(authority.issue_server(), accepted), authenticator) as running:
            before = await asyncio.to_thread(_call, access, running.server.address)
            accepted.write_bytes(newer.certificate.read_bytes())
            with pytest.raises(grpc.RpcError) as caught:
                await asyncio.to_thread(_call, access, running.server.address)
            return before, caught.value.code()

    assert (b"x", grpc.StatusCode.UNAVAILABLE) == asyncio.run(scenario())


def test_open_connections_do_not_outlive_their_authority(stack: Stack, authority: Authority) -> None:
    """A client that stays connected must show its certificate anew; what it is doing goes on meanwhile."""
    newer = Authority(authority.certificate.parent, "newer")
    accepted = authority.certificate.with_name("accepted.pem")
    accepted.write_bytes(authority.certificate.read_bytes())
    ann = authority.issue("ann", "ann@example.org")
    access = Access(ca=authority.certificate, certificate=ann.certificate, key=ann.key)
    options = replace(_options(authority.issue_server(), accepted), max_connection_age_s=0.5)

    async def slow(request: bytes, _: Any) -> bytes:
        await asyncio.sleep(1.2 if request == b"slow" else 0.0)
        return request

    def stay_connected(address: str) -> tuple[bytes, grpc.StatusCode]:
        with access.channel(address, []) as channel:
            method = channel.unary_unary(_METHOD)
            method(b"x", timeout=5)
            accepted.write_bytes(newer.certificate.read_bytes())
            long = method.future(b"slow", timeout=10)
            deadline = time.monotonic() + 10
            while time.monotonic() < deadline:
                try:
                    method(b"x", timeout=5)
                except grpc.RpcError as refused:
                    return long.result(), refused.code()
                time.sleep(0.05)
            raise AssertionError("the connection is still taken")

    async def scenario() -> tuple[bytes, grpc.StatusCode]:
        async with stack(slow, options, CallersAuthenticator(None, frozenset({"annotator"}))) as running:
            return await asyncio.to_thread(stay_connected, running.server.address)

    assert (b"slow", grpc.StatusCode.UNAVAILABLE) == asyncio.run(scenario())


def test_files_that_do_not_fit_are_refused_at_the_start(authority: Authority, tmp_path: Path) -> None:
    """Missing files, other keys and what is not PEM are InvalidInput that names the setting."""
    server, other = authority.issue_server(), authority.issue_server("other")
    junk = tmp_path / "junk.pem"
    junk.write_text("not PEM")
    good = {"certificate": server.certificate, "key": server.key}
    for changed, setting in [
        ({"certificate": tmp_path / "absent.pem"}, "tls_certificate"),
        ({"key": tmp_path / "absent.key"}, "tls_key"),
        ({"key": other.key}, "do not fit together"),
        ({"certificate": junk}, "do not fit together"),
        ({"client_ca": junk}, "tls_client_ca"),
        ({"client_ca": tmp_path / "absent.pem"}, "tls_client_ca"),
    ]:
        with pytest.raises(InvalidInput, match=setting):
            server_credentials(TlsFiles(**(good | changed)))


def test_key_with_a_password_is_refused(authority: Authority) -> None:
    """A key that asks for a password is refused rather than asked for on the terminal."""
    from cryptography.hazmat.primitives import serialization

    server = authority.issue_server()
    key = serialization.load_pem_private_key(server.key.read_bytes(), None)
    server.key.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.BestAvailableEncryption(b"secret"),
        )
    )
    with pytest.raises(InvalidInput, match="without a password"):
        server_credentials(TlsFiles(certificate=server.certificate, key=server.key))
