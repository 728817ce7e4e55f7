"""The audit worker: `celery -A workers.audit worker -Q audit -n audit@%h -P threads -c 1`."""

from techdeck_tasks.celeryconfig import Role
from techdeck_tasks.runtime import create_app

app = create_app(role=Role.AUDIT)
