import lab
import pytest
from celery import Celery


@pytest.fixture
def techdeck_celery_app() -> Celery:
    return lab.app
