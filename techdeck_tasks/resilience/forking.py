"""What a forked child must not inherit: locks that a lost thread holds, and counts that the parent tells."""

from __future__ import annotations

import os
import weakref
from typing import Protocol


class Forkable(Protocol):
    """Holds what a forked child must not go on with."""

    def start_empty(self) -> None:
        """Start again."""


_forkables: weakref.WeakSet[Forkable] = weakref.WeakSet()


def when_forked(one: Forkable) -> None:
    """Let `one` start empty in every forked child, as long as it lives."""
    _forkables.add(one)


def _after_fork_in_child() -> None:
    for one in list(_forkables):
        one.start_empty()


os.register_at_fork(after_in_child=_after_fork_in_child)
