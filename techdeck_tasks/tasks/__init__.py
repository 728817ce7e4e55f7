"""Celery tasks that classify, retry, audit and mask by themselves."""
