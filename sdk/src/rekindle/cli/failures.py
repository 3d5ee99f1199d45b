"""Errors for people: one clear line on stderr, and an exit code for scripts."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from typing import Final

import click

from rekindle import errors
from rekindle.errors import RekindleError

#: What is in no row exits with 1.
EXIT_CODES: Final[dict[type[RekindleError], int]] = {
    errors.InvalidInput: 2,
    errors.NotFound: 3,
    errors.AlreadyExists: 4,
    errors.IllegalTransition: 4,
    errors.ModelNotReady: 4,
    errors.LeaseLost: 4,
    errors.VersionConflict: 4,
    errors.CapacityExceeded: 5,
    errors.DependencyUnavailable: 5,
    errors.DeadlineExceeded: 5,
    errors.Unauthenticated: 6,
    errors.PermissionDenied: 6,
}


def exit_code(error: RekindleError) -> int:
    """The exit code that tells a script what kind of error it was."""
    return EXIT_CODES.get(type(error), 1)


@contextmanager
def about(file_name: str) -> Generator[None]:
    """Errors inside say which of many files they are about."""
    try:
        yield
    except RekindleError as error:
        error.message = f"{file_name}: {error.message}"
        raise


def tell(error: RekindleError) -> None:
    """Prints what is wrong, the fields at fault, and what was kept."""
    click.echo(f"error: {error.message}", err=True)
    for violation in error.violations:
        click.echo(f"  - {violation.field}: {violation.description}", err=True)
    draft = error.metadata.get("draft_submission_id")
    if draft:
        click.echo(f"  Your label is not lost: it is kept as draft {draft}.", err=True)
    incident = error.metadata.get("incident_id")
    if incident:
        click.echo(f"  The service's log has more under incident {incident}.", err=True)
