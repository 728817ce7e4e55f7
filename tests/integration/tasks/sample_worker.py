"""What a worker process is started with: ``celery -A sample_worker worker``."""

from sample_app import make_app

app = make_app()
