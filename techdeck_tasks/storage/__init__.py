"""Clients of Redis and PostgreSQL."""
