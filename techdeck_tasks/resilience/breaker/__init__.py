"""The Redis-shared circuit breaker."""
