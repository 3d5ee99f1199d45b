"""Old names that stay for a while next to a better one."""

from __future__ import annotations

import warnings


def warn_of_old_name(old: str, new: str) -> None:
    """Tells the caller of the function that calls this to use `new` instead of `old`."""
    warnings.warn(f"{old} is deprecated: use {new}", DeprecationWarning, stacklevel=3)
