"""Callers by token and by certificate: who is let in, and how the file is read."""

from __future__ import annotations

import asyncio
import errno
import json
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from rekindle.errors import InvalidInput, Unauthenticated
from rekindle.tokens import ROLE_NAMES, NewToken, create_token
from rekindle.watched_files import WatchedFiles
from rekindle_servicekit.callers import CallersFile, read_callers
from rekindle_servicekit.identity import Authenticator, Caller
from rekindle_servicekit.listening import CallersAuthenticator
from rekindle_servicekit.permissions import ROLES
from rekindle_servicekit.principal import Principal

_NOW = datetime.now(UTC)
_REMOTE = "ipv4:10.0.0.7:50312"


@pytest.fixture
def ann() -> NewToken:
    return create_token("ann", roles=["annotator"], name="Ann Example")


def _file(folder: Path, *lines: str) -> Path:
    path = folder / "callers.jsonl"
    path.write_text("\n".join(("# who may call", "", *lines)) + "\n")
    return path


def _ask(authenticator: Authenticator, **known: Any) -> Principal:
    return asyncio.run(authenticator.authenticate(Caller(peer=_REMOTE, **known)))


def _reason(authenticator: Authenticator, **known: Any) -> str:
    with pytest.raises(Unauthenticated) as caught:
        _ask(authenticator, **known)
    return caught.value.reason


def _bearer(token: str, scheme: str = "Bearer") -> dict[str, str]:
    return {"authorization": f"{scheme} {token}"}


def test_roles_of_the_client_are_those_of_the_table() -> None:
    """Whoever makes tokens knows the roles that the services know."""
    assert set(ROLE_NAMES) == ROLES.keys()


def test_token_is_its_caller(tmp_path: Path, ann: NewToken) -> None:
    """A token of the file is its line's caller, from wherever the call comes."""
    authenticator = CallersAuthenticator(CallersFile(_file(tmp_path, ann.line)))
    expected = Principal(issuer="callers", subject="ann", display_name="Ann Example", roles=frozenset({"annotator"}))
    assert expected == _ask(authenticator, metadata=_bearer(ann.token))
    assert expected == _ask(authenticator, metadata=_bearer(ann.token, "bearer"))


def test_secret_is_not_in_the_line(ann: NewToken) -> None:
    """What is stored does not give access: the line holds the token's id and digest alone."""
    secret = ann.token.rpartition("_")[2]
    assert 64 == len(secret)
    assert secret not in ann.line
    assert ann.token not in ann.line


def test_other_tokens_are_refused(tmp_path: Path, ann: NewToken) -> None:
    """Unknown tokens, a known id with another secret, the digest itself and other schemes let nobody in."""
    authenticator = CallersAuthenticator(CallersFile(_file(tmp_path, ann.line)))
    digest = json.loads(ann.line)["sha256"]
    token_id = json.loads(ann.line)["token"]
    others = [
        create_token("ann", roles=["annotator"]).token,
        f"rkd_{token_id}_{'0' * 64}",
        f"rkd_{token_id}_{digest}",
        ann.token.upper(),
        ann.token + "0",
        "x",
    ]
    assert ["UNKNOWN_TOKEN"] * 6 == [_reason(authenticator, metadata=_bearer(token)) for token in others]
    for header in (ann.token, f"Basic {ann.token}", "Bearer ", "Bearer", ""):
        assert "NO_BEARER_TOKEN" == _reason(authenticator, metadata={"authorization": header})


def test_without_credentials_nobody_is_let_in(tmp_path: Path, ann: NewToken) -> None:
    """With a callers' file the local user is nobody either: on a shared machine others can reach loopback."""
    authenticator = CallersAuthenticator(CallersFile(_file(tmp_path, ann.line)))
    assert "NO_CREDENTIALS" == _reason(authenticator)
    with pytest.raises(Unauthenticated):
        asyncio.run(authenticator.authenticate(Caller(peer="ipv4:127.0.0.1:9")))


def test_tokens_expire(tmp_path: Path) -> None:
    """A token is good until its moment and refused from then on, with a reason of its own."""
    past = create_token("ann", roles=["annotator"], expires=_NOW - timedelta(seconds=1))
    future = create_token("ann", roles=["annotator"], expires=_NOW + timedelta(hours=1))
    authenticator = CallersAuthenticator(CallersFile(_file(tmp_path, past.line, future.line)))
    assert "ann" == _ask(authenticator, metadata=_bearer(future.token)).subject
    assert "TOKEN_EXPIRED" == _reason(authenticator, metadata=_bearer(past.token))
    callers, moment = (
        read_callers(_file(tmp_path, future.line)),
        datetime.fromisoformat(json.loads(future.line)["expires"]),
    )
    assert "ann" == callers.by_token(future.token, moment - timedelta(seconds=1)).subject
    with pytest.raises(Unauthenticated):
        callers.by_token(future.token, moment)


def test_certificates_are_callers(tmp_path: Path, ann: NewToken) -> None:
    """A certificate's name in the file is its line's caller, by any of its names; a token counts more."""
    line = json.dumps({"certificate": "scheduler.example", "subject": "scheduler", "roles": ["service"]})
    authenticator = CallersAuthenticator(CallersFile(_file(tmp_path, ann.line, line)))
    names = ("10.0.0.7", "scheduler.example")
    assert ("callers", "scheduler") == (
        _ask(authenticator, certificate_names=names).issuer,
        _ask(authenticator, certificate_names=names).subject,
    )
    assert "ann" == _ask(authenticator, certificate_names=names, metadata=_bearer(ann.token)).subject
    assert "UNKNOWN_TOKEN" == _reason(authenticator, certificate_names=names, metadata=_bearer("x"))
    assert "UNKNOWN_CERTIFICATE" == _reason(authenticator, certificate_names=("other.example",))


def test_roles_for_all_certificates(tmp_path: Path) -> None:
    """Certificates that the file does not name have the roles that the setting gives to all."""
    line = json.dumps({"certificate": "boss.example", "subject": "boss", "roles": ["admin"]})
    authenticator = CallersAuthenticator(CallersFile(_file(tmp_path, line)), frozenset({"viewer"}))
    assert frozenset({"viewer"}) == _ask(authenticator, certificate_names=("other.example",)).roles
    assert frozenset({"admin"}) == _ask(authenticator, certificate_names=("boss.example",)).roles


def test_file_that_could_not_be_read_for_a_moment_is_read_again(
    tmp_path: Path, ann: NewToken, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A line that was taken out at such a moment does not let anybody in until the next change."""
    path = _file(tmp_path, ann.line)
    file = CallersFile(path)
    monkeypatch.setattr(file._files, "_look_again_s", 0.0)
    authenticator = CallersAuthenticator(file)
    _file(tmp_path, create_token("bob", roles=["reviewer"]).line)
    with monkeypatch.context() as patch:
        patch.setattr(Path, "read_text", _too_many_open_files)
        assert "ann" == _ask(authenticator, metadata=_bearer(ann.token)).subject
    assert "UNKNOWN_TOKEN" == _reason(authenticator, metadata=_bearer(ann.token))


def _too_many_open_files(*_: Any, **__: Any) -> str:
    raise OSError(errno.EMFILE, "Too many open files")


def test_files_have_changed_when_somebody_is_allowed_to_read_them(tmp_path: Path) -> None:
    """Their bytes are the same, and could not be read before."""
    path = _file(tmp_path)
    path.chmod(0o200)
    files = WatchedFiles([path])
    time.sleep(0.01)
    path.chmod(0o600)
    assert [True, False] == [files.have_changed(), files.have_changed()]


def test_file_is_followed(tmp_path: Path, ann: NewToken) -> None:
    """A line that is taken out stops working at the next call, and one that is added begins to."""
    bob = create_token("bob", roles=["reviewer"])
    path = _file(tmp_path, ann.line)
    authenticator = CallersAuthenticator(CallersFile(path))
    assert "ann" == _ask(authenticator, metadata=_bearer(ann.token)).subject
    _file(tmp_path, bob.line)
    assert "UNKNOWN_TOKEN" == _reason(authenticator, metadata=_bearer(ann.token))
    assert "bob" == _ask(authenticator, metadata=_bearer(bob.token)).subject


def test_broken_file_leaves_the_callers_of_before(
    tmp_path: Path, ann: NewToken, caplog: pytest.LogCaptureFixture
) -> None:
    """A mistake in the file locks nobody out while the service runs; the log names the line, not its content."""
    path = _file(tmp_path, ann.line)
    authenticator = CallersAuthenticator(CallersFile(path))
    _file(tmp_path, '{"subject": "carol"}')
    assert "ann" == _ask(authenticator, metadata=_bearer(ann.token)).subject
    path.unlink()
    assert "ann" == _ask(authenticator, metadata=_bearer(ann.token)).subject
    errors = [record.getMessage() for record in caplog.records if record.levelname == "ERROR"]
    assert 2 == len(errors)
    assert "line 3" in errors[0]
    assert "carol" not in "".join(errors)


_GOOD: dict[str, Any] = {"token": "0123456789ab", "sha256": "0" * 64, "subject": "ann", "roles": ["annotator"]}


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"sha256": "abc"}, "sha256"),
        ({"sha256": None}, "sha256"),
        ({"subject": " "}, "subject"),
        ({"subject": 7}, "subject"),
        ({"name": ""}, "name"),
        ({"roles": []}, "roles"),
        ({"roles": "admin"}, "roles"),
        ({"roles": ["root"]}, "roles"),
        ({"role": "admin"}, "'role'"),
        ({"expires": "tomorrow"}, "expires"),
        ({"expires": "2030-01-01T00:00:00"}, "time zone"),
        ({"certificate": "a.example"}, "either token"),
        ({"token": None}, "token"),
    ],
)
def test_wrong_lines_are_refused_at_the_start(tmp_path: Path, changes: dict[str, Any], words: str) -> None:
    """Each mistake is InvalidInput with the number of the line and the key at fault."""
    with pytest.raises(InvalidInput, match=words) as caught:
        read_callers(_file(tmp_path, json.dumps(_GOOD | changes)))
    assert "line 3" in caught.value.message


def test_other_wrong_files_are_refused(tmp_path: Path) -> None:
    """Lines that are no objects, the same token twice, no file and no text are refused."""
    for lines in (["nonsense"], ["[1]"], [json.dumps(_GOOD), json.dumps(_GOOD)]):
        with pytest.raises(InvalidInput, match="line "):
            read_callers(_file(tmp_path, *lines))
    binary = tmp_path / "binary"
    binary.write_bytes(b"\xff\xfe\x00")
    for path in (tmp_path / "absent", binary):
        with pytest.raises(InvalidInput, match="cannot be read"):
            read_callers(path)


def test_tokens_are_made_for_known_roles_only() -> None:
    """A misspelt role, no role and no subject are refused before a token exists."""
    for subject, roles in (("ann", ["anotator"]), ("ann", []), (" ", ["annotator"])):
        with pytest.raises(InvalidInput):
            create_token(subject, roles=roles)
    with pytest.raises(InvalidInput, match="time zone"):
        create_token("ann", roles=["annotator"], expires=datetime(2030, 1, 1))
