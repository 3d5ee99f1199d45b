"""What the shared settings of a server allow, and what they refuse before it listens."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from certificates import Authority
from rekindle.errors import InvalidInput
from rekindle.tokens import create_token
from rekindle_servicekit.identity import LoopbackAuthenticator
from rekindle_servicekit.listening import CallersAuthenticator, ListenSettings, make_authenticator, server_options
from rekindle_servicekit.server import check_exposure

_ANYWHERE = "0.0.0.0:0"


@pytest.fixture
def files(tmp_path: Path) -> dict[str, Path]:
    """Every file that the settings may name."""
    authority = Authority(tmp_path)
    server = authority.issue_server()
    callers = tmp_path / "callers.jsonl"
    callers.write_text(create_token("ann", roles=["annotator"]).line + "\n")
    return {
        "tls_certificate": server.certificate,
        "tls_key": server.key,
        "tls_client_ca": authority.certificate,
        "callers_file": callers,
    }


def _listen(files: dict[str, Path], *named: str, **values: Any) -> None:
    settings = ListenSettings(**{name: files[name] for name in named}, **values)
    check_exposure(server_options(settings))
    make_authenticator(settings)


@pytest.mark.parametrize(
    ("named", "values", "reason"),
    [
        ((), {}, "NO_CALLERS"),
        (("callers_file",), {}, "INSECURE_ADDRESS"),
        (("tls_certificate", "tls_key"), {}, "NO_CALLERS"),
        (("tls_certificate", "tls_key", "tls_client_ca"), {}, "NO_CALLERS"),
        (("tls_certificate", "tls_key", "callers_file"), {}, None),
        (("tls_certificate", "tls_key", "tls_client_ca", "callers_file"), {}, None),
        (("tls_certificate", "tls_key", "tls_client_ca"), {"certificate_roles": "service, viewer"}, None),
        (("callers_file",), {"insecure": True}, None),
        ((), {"insecure": True}, None),
    ],
)
def test_beyond_loopback(
    files: dict[str, Path], named: tuple[str, ...], values: dict[str, Any], reason: str | None
) -> None:
    """Other machines are served over TLS and to known callers only, unless plain text is asked for."""
    if reason is None:
        _listen(files, *named, address=_ANYWHERE, **values)
        return
    with pytest.raises(InvalidInput) as caught:
        _listen(files, *named, address=_ANYWHERE, **values)
    assert reason == caught.value.reason


@pytest.mark.parametrize(
    ("named", "values", "words"),
    [
        (("tls_certificate",), {}, "belong together"),
        (("tls_key",), {}, "belong together"),
        (("tls_client_ca",), {}, "needs the server's own"),
        (("callers_file",), {"certificate_roles": "root"}, "certificate_roles"),
    ],
)
def test_contradictions_are_refused(
    files: dict[str, Path], named: tuple[str, ...], values: dict[str, Any], words: str
) -> None:
    """Half a pair of files and roles that do not exist are refused in words, on loopback too."""
    with pytest.raises(InvalidInput, match=words):
        _listen(files, *named, **values)


def test_local_user_only_where_nobody_is_configured(files: dict[str, Path]) -> None:
    """Without callers the local user is known; with a file of callers only they are."""
    assert isinstance(make_authenticator(ListenSettings()), LoopbackAuthenticator)
    named = make_authenticator(ListenSettings(callers_file=files["callers_file"]))
    assert isinstance(named, CallersAuthenticator)
