"""The database schema's history, for alembic."""
