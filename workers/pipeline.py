"""The pipeline worker: `celery -A workers.pipeline worker -Q pipeline -n pipeline@%h`."""

from techdeck_tasks.celeryconfig import Role
from techdeck_tasks.runtime import create_app

app = create_app(role=Role.PIPELINE)
