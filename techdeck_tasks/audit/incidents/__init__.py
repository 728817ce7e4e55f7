"""Security incidents and their investigation."""
