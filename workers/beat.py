"""The scheduler, one a deployment: `celery -A workers.beat beat`."""

from techdeck_tasks.celeryconfig import Role
from techdeck_tasks.runtime import create_app

app = create_app(role=Role.BEAT)
