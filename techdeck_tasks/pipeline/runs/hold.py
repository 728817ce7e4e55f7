"""What an attempt learns from the store about its stage: that it has it, and whether it has it still."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from techdeck_tasks.pipeline.runs.parts import Part


@dataclass(frozen=True, slots=True)
class Claimed:
    """A stage, or the `part` of one, that is now the caller's."""

    part: Part | None


class Hold(Enum):
    """What an attempt learns about its claim."""

    HELD = "held"
    CANCELLING = "cancelling"
    """Its run is called off: it should stop."""
    LOST = "lost"
    """The stage ended, or belongs to another attempt: what this one delivers will be refused."""
