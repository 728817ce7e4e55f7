"""What an audit worker is started with: ``celery -A gated_audit worker``."""

from techdeck_tasks.celeryconfig import Role
from techdeck_tasks.runtime import create_app

app = create_app(role=Role.AUDIT)
