"""A folder that follows a project's results: the mask that stands for each image, and nothing else."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from rekindle._names import file_name
from rekindle.errors import InvalidInput
from rekindle.formats import SUFFIXES, FormatName
from rekindle.results import Result

CURSOR = "cursor"


class ResultFolder:
    """Keeps `<volume id>.<ending>` and what is known of it as `<volume id>.json`, and how far the feed was followed.

    Keeping a result twice changes nothing, so a feed can be resumed after any interruption.
    """

    def __init__(self, folder: Path, format: FormatName = "nifti") -> None:
        if format not in SUFFIXES:
            raise InvalidInput(f"masks are not written as {format}: use one of {', '.join(SUFFIXES)}")
        self._folder = folder
        self._format: FormatName = format
        folder.mkdir(parents=True, exist_ok=True)

    @property
    def cursor(self) -> int:
        """Cursor of the last result that was kept; 0 in a new folder."""
        try:
            return int((self._folder / CURSOR).read_text())
        except FileNotFoundError:
            return 0
        except ValueError:
            raise InvalidInput(f"{self._folder / CURSOR} holds no number: remove it to begin again") from None

    def keep(self, result: Result) -> Path | None:
        """Keeps the next result; answers the path of its mask, or None if it has none.

        A newer mask replaces the older; one that was taken back goes, unless another one stands already; a model's
        one that a person's outranks is passed over; where every organ was left out there is no mask.
        """
        path = self._path(result)
        if result.retracted:
            if self._known(result).get("id") == result.supersedes:
                path.unlink(missing_ok=True)
                self._note(result)
            kept = None
        elif result.outranked_by:
            kept = None
        elif result.quality and len(result.abstentions) == len(result.quality):
            path.unlink(missing_ok=True)
            self._note(result)
            kept = None
        else:
            _write(path, result.mask(self._format).data)
            self._note(result)
            kept = path
        _write(self._folder / CURSOR, str(result.cursor).encode())
        return kept

    def _path(self, result: Result) -> Path:
        return self._folder / f"{file_name(result.volume_id)}{SUFFIXES[self._format][0]}"

    def _known(self, result: Result) -> dict[str, Any]:
        path = self._folder / f"{file_name(result.volume_id)}.json"
        return json.loads(path.read_text()) if path.exists() else {}

    def _note(self, result: Result) -> None:
        data = json.dumps(result.describe(), indent=2)
        _write(self._folder / f"{file_name(result.volume_id)}.json", data.encode())


def _write(path: Path, data: bytes) -> None:
    """Writes the whole file or nothing, also when the process dies."""
    staged = path.with_name(f".{path.name}.{os.getpid()}")
    staged.write_bytes(data)
    staged.replace(path)
