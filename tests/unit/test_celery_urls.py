"""Which brokers and result stores Celery can be told to use."""

from __future__ import annotations

import pytest

from techdeck_tasks.celeryconfig import celery_settings
from techdeck_tasks.settings import Settings, SettingsError


@pytest.mark.parametrize("field", ["broker_url", "result_backend_url"])
def test_a_scheme_that_nothing_speaks_is_refused_and_the_url_not_repeated(field: str) -> None:
    settings = Settings.model_validate({field: "bogus://user:hunter2@host"})

    with pytest.raises(SettingsError, match=f"TECHDECK_{field.upper()}: nothing .* speaks 'bogus'") as caught:
        celery_settings(settings)

    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize(
    ("broker", "results"),
    [
        ("redis://h/0", "redis://h/1"),
        ("sentinel://a:1;sentinel://b:1", "sentinel://a:1;sentinel://b:1"),
        ("amqp://u:p@h//", "db+postgresql://h/d"),
        ("memory://", "cache+memory://"),
        ("kombu.transport.memory:Transport://", "celery.backends.cache:CacheBackend://"),
    ],
)
def test_what_celery_speaks_is_taken(broker: str, results: str) -> None:
    told = celery_settings(Settings(broker_url=broker, result_backend_url=results))

    assert (told["broker_url"], told["result_backend"]) == (broker, results)
