"""Which models are loaded, who holds them, and which of them is to be unloaded next."""

from __future__ import annotations

import threading
from collections.abc import Collection
from dataclasses import dataclass


@dataclass(slots=True)
class _Resident:
    project_id: str
    memory_bytes: int
    #: Grows with every use of any model.
    used: int
    #: An active version, or one that a rollback would need.
    kept: bool


class Residents:
    """Loaded models up to `memory_bytes`; what is held is never given up. Safe to use from several threads."""

    def __init__(self, memory_bytes: int) -> None:
        self._limit = memory_bytes
        self._residents: dict[str, _Resident] = {}
        self._holds: dict[str, int] = {}
        #: To be unloaded as soon as nobody holds them.
        self._retired: set[str] = set()
        self._uses = 0
        self._lock = threading.Lock()

    def __contains__(self, name: str) -> bool:
        with self._lock:
            return name in self._residents

    def names(self) -> tuple[str, ...]:
        """The least recently used one first."""
        with self._lock:
            return tuple(sorted(self._residents, key=lambda name: self._residents[name].used))

    def hold(self, name: str) -> None:
        with self._lock:
            self._holds[name] = self._holds.get(name, 0) + 1
            self._uses += 1
            if name in self._residents:
                self._residents[name].used = self._uses

    def release(self, name: str) -> None:
        with self._lock:
            left = self._holds[name] - 1
            if left:
                self._holds[name] = left
            else:
                del self._holds[name]

    def add(self, name: str, project_id: str, memory_bytes: int) -> None:
        """It has been loaded."""
        with self._lock:
            self._uses += 1
            self._residents[name] = _Resident(project_id, memory_bytes, self._uses, kept=False)
            self._retired.discard(name)

    def remove(self, name: str) -> None:
        """It is loaded no more."""
        with self._lock:
            self._residents.pop(name, None)
            self._retired.discard(name)

    def keep(self, project_id: str, names: Collection[str]) -> None:
        """Of a project's models these stay; the others go once nobody holds them."""
        with self._lock:
            for name, resident in self._residents.items():
                if resident.project_id == project_id:
                    resident.kept = name in names
                    (self._retired.discard if resident.kept else self._retired.add)(name)

    def take_surplus(self) -> list[str]:
        """What is to be unloaded now, removed from the residents: retired models, then the least recently used.

        Kept ones leave last, and the one that was used last stays, also where it alone exceeds the limit.
        """
        with self._lock:
            free = [name for name in self._residents if not self._holds.get(name)]
            surplus = [name for name in free if name in self._retired]
            others = sorted(set(free) - set(surplus), key=self._order)
            used = sum(each.memory_bytes for name, each in self._residents.items() if name not in surplus)
            last = max(self._residents, key=lambda name: self._residents[name].used, default=None)
            for name in others:
                if used > self._limit and name != last:
                    surplus.append(name)
                    used -= self._residents[name].memory_bytes
            for name in surplus:
                del self._residents[name]
                self._retired.discard(name)
            return surplus

    def _order(self, name: str) -> tuple[bool, int]:
        return (self._residents[name].kept, self._residents[name].used)
