"""Foreign exceptions by dotted name: which class of the taxonomy each belongs to.

No driver is imported: a name that is not installed is never met.
"""

from collections.abc import Mapping
from types import MappingProxyType

from techdeck_tasks.errors.mappings import (
    data_libraries,
    databases,
    http_clients,
    messaging,
    standard_library,
)
from techdeck_tasks.errors.verdict import Target

BUILTIN_MAPPINGS: Mapping[str, Target] = MappingProxyType(
    {
        **standard_library.MAPPINGS,
        **http_clients.MAPPINGS,
        **databases.MAPPINGS,
        **messaging.MAPPINGS,
        **data_libraries.MAPPINGS,
    }
)
"""What is known without anybody registering anything."""

__all__ = ["BUILTIN_MAPPINGS"]
