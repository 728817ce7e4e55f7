"""Data pipelines on Celery that stay reliable and accountable when things go wrong."""
