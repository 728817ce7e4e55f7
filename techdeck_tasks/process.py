"""What libraries read once from the environment of a process: to be set before they are imported.

What is set already stays as it is.
"""

from __future__ import annotations

import os

_DEFAULTS = {
    # Celery: SIGTERM as the soft shutdown, which ends within bounds and then hands messages back.
    "REMAP_SIGTERM": "SIGQUIT",
    # Polars: memory in huge pages, and offered to the system 10 s after its last use, not 0.5 s; the system
    # takes it when it is short of memory. The parts of a stage need the same memory one after the other: to
    # be given it anew each time is a third of their processor time.
    "POLARS_THP": "1",
    "_RJEM_MALLOC_CONF": "dirty_decay_ms:10000,muzzy_decay_ms:-1",
}


def set_defaults() -> None:
    """Set them for this process and its children. Call it before Celery's worker and Polars are imported."""
    for name, value in _DEFAULTS.items():
        os.environ.setdefault(name, value)


def share_cores(processes: int) -> None:
    """Let each of `processes` children compute with its share of this machine's cores, one at least."""
    cores = len(os.sched_getaffinity(0))
    os.environ.setdefault("POLARS_MAX_THREADS", str(max(1, cores // processes)))
