"""Entry point of `rekindle`; says what to install where the extra `cli` is missing."""

from __future__ import annotations

import sys

try:
    from rekindle.cli.commands import rekindle as main
except ModuleNotFoundError as missing:
    if missing.name not in ("click", "rich"):
        raise

    def main() -> None:
        """Stands in for the command line where it is not installed."""
        sys.exit("The command line needs two more packages: pip install 'rekindle[cli]'")


if __name__ == "__main__":
    main()
