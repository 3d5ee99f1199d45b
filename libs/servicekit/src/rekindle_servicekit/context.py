"""What a piece of work belongs to: request, project, round, run and caller, for logs and use cases."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from contextvars import ContextVar

from rekindle.errors import Unauthenticated

from rekindle_servicekit.principal import Principal

_NAMES = ("request_id", "project", "round", "run")
_IDS: dict[str, ContextVar[str | None]] = {name: ContextVar(name, default=None) for name in _NAMES}
_PRINCIPAL: ContextVar[Principal | None] = ContextVar("principal", default=None)


@contextmanager
def bind(
    *,
    request_id: str | None = None,
    project: str | None = None,
    round: str | int | None = None,
    run: str | None = None,
    principal: Principal | None = None,
) -> Generator[None]:
    """Let what runs inside, also by `run_blocking`, belong to these; None leaves what was set outside."""
    given = {"request_id": request_id, "project": project, "round": round, "run": run}
    tokens = [(_IDS[name], _IDS[name].set(str(value))) for name, value in given.items() if value is not None]
    principal_token = None if principal is None else _PRINCIPAL.set(principal)
    try:
        yield
    finally:
        for variable, token in tokens:
            variable.reset(token)
        if principal_token is not None:
            _PRINCIPAL.reset(principal_token)


def ids() -> dict[str, str]:
    """The ids that are set now, by name: request_id, project, round, run."""
    values = {name: variable.get() for name, variable in _IDS.items()}
    return {name: value for name, value in values.items() if value is not None}


def request_id() -> str | None:
    """The id of the call being served."""
    return _IDS["request_id"].get()


def principal() -> Principal:
    """The caller; Unauthenticated where no interceptor has set one."""
    current = _PRINCIPAL.get()
    if current is None:
        raise Unauthenticated("nobody is signed in for this call")
    return current
