"""How a client proves who it is: tokens, their files, TLS, and what is refused before anything is sent."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent import futures
from pathlib import Path
from typing import Any

import grpc
import pytest
from certificates import Authority
from rekindle._call import Caller, Retry
from rekindle.client import Client
from rekindle.credentials import Access, from_environment
from rekindle.errors import DependencyUnavailable, InvalidInput

_KINDS = ("unary_unary", "unary_stream", "stream_unary", "stream_stream")


class Gate:
    """A server of all four call kinds that notes what each call shows."""

    def __init__(self, credentials: grpc.ServerCredentials | None = None) -> None:
        self.seen: list[tuple[str | None, str | None]] = []
        self.hold = threading.Event()
        self.hold.set()
        self._server = grpc.server(futures.ThreadPoolExecutor(4))
        handlers = {kind: getattr(grpc, f"{kind}_rpc_method_handler")(getattr(self, kind)) for kind in _KINDS}
        self._server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("Gate", handlers),))
        bind = self._server.add_insecure_port if credentials is None else self._server.add_secure_port
        port = bind("127.0.0.1:0", *([] if credentials is None else [credentials]))
        self.address = f"127.0.0.1:{port}"
        self._server.start()

    def _note(self, context: Any) -> bytes:
        names = context.peer_identities()
        self.seen.append((dict(context.invocation_metadata()).get("authorization"), names and names[0].decode()))
        self.hold.wait(5)
        return b"ok"

    def unary_unary(self, _: bytes, context: Any) -> bytes:
        return self._note(context)

    def unary_stream(self, _: bytes, context: Any) -> Iterator[bytes]:
        yield self._note(context)

    def stream_unary(self, requests: Iterator[bytes], context: Any) -> bytes:
        list(requests)
        return self._note(context)

    def stream_stream(self, requests: Iterator[bytes], context: Any) -> Iterator[bytes]:
        list(requests)
        yield self._note(context)

    def close(self) -> None:
        self._server.stop(0).wait()


@pytest.fixture
def gate() -> Iterator[Gate]:
    gate = Gate()
    yield gate
    gate.close()


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


@pytest.fixture
def tls_gate(authority: Authority) -> Iterator[Gate]:
    """The same behind mutual TLS."""
    server = authority.issue_server()
    pair = (server.key.read_bytes(), server.certificate.read_bytes())
    gate = Gate(grpc.ssl_server_credentials([pair], authority.certificate.read_bytes(), True))
    yield gate
    gate.close()


def _call(channel: grpc.Channel, kind: str = "unary_unary") -> list[bytes]:
    message: Any = iter([b"a", b"b"]) if kind.startswith("stream") else b"a"
    answer: Any = getattr(channel, kind)(f"/Gate/{kind}")(message, timeout=5)
    return list(answer) if kind.endswith("stream") else [answer]


@pytest.mark.parametrize("kind", _KINDS)
def test_token_goes_with_every_kind_of_call(gate: Gate, kind: str) -> None:
    """Each of the four kinds carries the token as a bearer."""
    with Access(token="secret-1").channel(gate.address, []) as channel:
        assert [b"ok"] == _call(channel, kind)
    assert [("Bearer secret-1", None)] == gate.seen


def test_token_file_is_read_again(gate: Gate, tmp_path: Path) -> None:
    """The same channel sends the new token after the file was replaced, and the old one while it is not there."""
    path = tmp_path / "token"
    path.write_text("first\n")
    with Access(token_file=path).channel(gate.address, []) as channel:
        _call(channel)
        path.write_text("second\n")
        _call(channel)
        path.unlink()
        _call(channel)
    assert ["Bearer first", "Bearer second", "Bearer second"] == [token for token, _ in gate.seen]


@pytest.mark.parametrize("address", ["10.1.2.3:50051", "rekindle.example:443", "0.0.0.0:1"])
def test_token_in_plain_text_is_refused(address: str) -> None:
    """A token never leaves the machine unencrypted, unless that is asked for."""
    with pytest.raises(InvalidInput, match="plain text") as caught:
        Access(token="t").channel(address, [])
    assert "PLAIN_TEXT_TOKEN" == caught.value.reason
    with pytest.raises(InvalidInput, match="plain text"):
        Client.connect(address, token="t")
    Access(token="t", insecure=True).channel(address, []).close()
    Access(token="t", tls=True).channel(address, []).close()
    Access().channel(address, []).close()


@pytest.mark.parametrize("kind", _KINDS)
def test_client_certificate(tls_gate: Gate, authority: Authority, kind: str) -> None:
    """With certificate and key the client is known by its name, and its token comes along."""
    ann = authority.issue("ann", "ann@example.org")
    access = Access(ca=authority.certificate, certificate=ann.certificate, key=ann.key, token="t")
    with access.channel(tls_gate.address, []) as channel:
        assert [b"ok"] == _call(channel, kind)
    assert [("Bearer t", "ann@example.org")] == tls_gate.seen


def test_certificate_is_renewed(tls_gate: Gate, authority: Authority) -> None:
    """A channel shows the certificate that the files hold now; calls that run are not cut off."""
    ann = authority.issue("ann", "ann@example.org")
    access = Access(ca=authority.certificate, certificate=ann.certificate, key=ann.key)
    with access.channel(tls_gate.address, []) as channel:
        method = channel.unary_unary("/Gate/unary_unary")
        tls_gate.hold.clear()
        running = method.future(b"a", timeout=10)
        authority.issue("ann", "ann.new@example.org", into=ann)
        later = method.future(b"a", timeout=10)
        tls_gate.hold.set()
        assert (b"ok", b"ok") == (running.result(), later.result())
        ann.key.write_text("half-written")
        assert [b"ok"] == _call(channel)
    names = {name for _, name in tls_gate.seen}
    assert {"ann@example.org", "ann.new@example.org"} == names
    assert "ann.new@example.org" == tls_gate.seen[-1][1]


def test_error_says_what_is_wrong_with_tls(tls_gate: Gate, gate: Gate, authority: Authority, tmp_path: Path) -> None:
    """Wrong authorities and a service without TLS are told at once; a missing certificate is hinted at."""
    stranger = Authority(tmp_path, "stranger")
    waits: list[float] = []
    for access, address, words, tries in [
        (Access(ca=stranger.certificate), tls_gate.address, "certificate verify failed", 1),
        (Access(ca=authority.certificate), gate.address, "wrong version number", 1),
        (Access(ca=authority.certificate), tls_gate.address, "asks for TLS or a client certificate", 2),
        (Access(), tls_gate.address, "asks for TLS or a client certificate", 2),
    ]:
        waits.clear()
        caller = Caller(retry=Retry(attempts=2), sleep=waits.append, addresses={"scheduler": address})
        with access.channel(address, []) as channel, pytest.raises(DependencyUnavailable, match=words) as caught:
            caller.unary(channel.unary_unary("/Gate/unary_unary"), b"x")
        assert "scheduler" in caught.value.message
        assert tries - 1 == len(waits)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"certificate": Path("a.pem")}, "belong together"),
        ({"key": Path("a.key")}, "belong together"),
        ({"token": "a", "token_file": Path("b")}, "not both"),
        ({"token": ""}, "empty"),
        ({"token": "two words"}, "blanks"),
        ({"token": "line\nbreak"}, "blanks"),
    ],
)
def test_contradictions_are_refused(given: dict[str, Any], words: str) -> None:
    """What cannot be meant is InvalidInput."""
    with pytest.raises(InvalidInput, match=words):
        Access(**given)


def test_files_that_cannot_be_used_are_refused(authority: Authority, tmp_path: Path) -> None:
    """Missing files and what is not PEM are told when the client connects."""
    junk = tmp_path / "junk"
    junk.write_text("junk")
    for given in ({"ca": tmp_path / "absent"}, {"ca": junk}, {"token_file": tmp_path / "absent"}):
        with pytest.raises(InvalidInput, match=str(tmp_path)):
            Access(**given).channel("127.0.0.1:1", [])


def test_environment_fills_what_is_not_given() -> None:
    """Arguments count more than the environment; with neither there is plain text without a token."""
    assert from_environment({}) is None
    assert from_environment({"REKINDLE_TLS": "0", "REKINDLE_TOKEN": ""}) is None
    environment = {"REKINDLE_CA": "/etc/ca.pem", "REKINDLE_TOKEN": "env", "REKINDLE_SERVER_NAME": "a.example"}
    assert Access(ca=Path("/etc/ca.pem"), token="env", server_name="a.example") == from_environment(environment)
    given = from_environment(environment, token_file="/run/token", ca="/own.pem")
    assert Access(ca=Path("/own.pem"), token_file=Path("/run/token"), server_name="a.example") == given
    assert Access(tls=True) == from_environment({"REKINDLE_TLS": "true"})


def test_token_is_not_printed() -> None:
    """Whoever prints or logs an Access does not give the token away."""
    assert "secret-1" not in repr(Access(token="secret-1"))
