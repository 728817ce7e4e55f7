"""PostgreSQL and Redis without installing either: started with the process, gone with the process.

For development, tests and trying things out. Both listen on the loopback interface only and demand a
random password.
"""

from __future__ import annotations

from techdeck_tasks.devservices.errors import DevServiceError
from techdeck_tasks.devservices.postgres import EmbeddedPostgres
from techdeck_tasks.devservices.redis_server import EmbeddedRedis
from techdeck_tasks.devservices.services import DevServices, ServiceUrls

__all__ = [
    "DevServiceError",
    "DevServices",
    "EmbeddedPostgres",
    "EmbeddedRedis",
    "ServiceUrls",
]
