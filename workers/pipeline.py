"""The pipeline worker: `celery -A workers.pipeline worker -Q pipeline -n pipeline@%h`."""

from techdeck_tasks.process import set_defaults

set_defaults()

from techdeck_tasks.celeryconfig import Role  # noqa: E402 - it is too late once Polars is imported
from techdeck_tasks.runtime import create_app  # noqa: E402 - as above

app = create_app(role=Role.PIPELINE)
