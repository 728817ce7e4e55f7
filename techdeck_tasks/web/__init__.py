"""The HTTP API, its error responses and the dashboard."""
