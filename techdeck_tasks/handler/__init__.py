"""The one place an error goes through: `flow` is its way, `entrances` are what callers use."""

from techdeck_tasks.handler.entrances import ErrorHandler
from techdeck_tasks.handler.flow import HandledError, Recovery

__all__ = ["ErrorHandler", "HandledError", "Recovery"]
