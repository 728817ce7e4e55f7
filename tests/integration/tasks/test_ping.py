"""``techdeck worker ping``, the health check of worker containers."""

from __future__ import annotations

import socket

import pytest
from typer.testing import CliRunner
from worker_site import Site

from techdeck_tasks.cli.worker import app
from techdeck_tasks.devservices.ports import free_port

FAILED = 1


def ping(redis_url: str, *options: str) -> tuple[int, str]:
    # No keys, as in a container whose keys are broken: only the broker is needed.
    environment = {"TECHDECK_REDIS_URL": redis_url, "TECHDECK_KEYS_DIR": "/nonexistent"}
    done = CliRunner().invoke(app, ["ping", *options], env=environment)
    return done.exit_code, done.output


def test_the_workers_of_this_host_are_named(own_site: Site) -> None:
    name = f"here@{socket.gethostname()}"
    own_site.start_worker("here", 1, "-n", name).wait_ready()
    code, said = ping(own_site.url)
    assert (code, f"{name} answers" in said) == (0, True)


def test_a_worker_of_another_host_does_not_answer_for_this_one(own_site: Site) -> None:
    own_site.start_worker("there", 1, "-n", "there@elsewhere").wait_ready()
    code, said = ping(own_site.url, "--timeout", "0.5")
    assert code == FAILED
    assert f"no worker of host {socket.gethostname()} answers within 0.5 s" in said


@pytest.mark.parametrize("option", ["0", "-1"])
def test_a_time_of_nothing_is_refused(own_site: Site, option: str) -> None:
    assert ping(own_site.url, "--timeout", option)[0] == 2


def test_without_redis_it_fails(own_site: Site) -> None:
    code, _ = ping(f"redis://127.0.0.1:{free_port()}/0", "--timeout", "0.5")
    assert code != 0
