"""What a worker process is started with: ``celery -A gated_worker worker``."""

import gated_stages  # noqa: F401 - registers its stages

from techdeck_tasks.celeryconfig import Role
from techdeck_tasks.runtime import create_app

app = create_app(role=Role.PIPELINE)
