"""Breakers, parking, fallbacks, dead letters and interventions, in real workers."""

from __future__ import annotations

from typing import Any

import pytest
from celery import chain, chord
from protected_tasks import UP
from worker_site import Sample, wait_until

from techdeck_tasks.errors import (
    AuthenticationError,
    BiasDetectionError,
    CircuitBreakerError,
    FallbackFailedError,
    ServiceUnavailableError,
    ValidationError,
)
from techdeck_tasks.runtime import runtime_of
from techdeck_tasks.tasks.replay import replay
from techdeck_tasks.tasks.transitions import record_transitions


def _trip(sample: Sample, name: str) -> None:
    for _ in range(2):
        assert isinstance(sample.failure(name)[1], ServiceUnavailableError)


def test_a_task_that_meets_an_open_breaker_parks_and_succeeds_without_spending_an_attempt(
    sample: Sample,
) -> None:
    _trip(sample, "parking")
    result = sample.task("parking").delay()
    wait_until(lambda: result.state == "RETRY", "parked")
    sample.redis.set(UP + "lab-parking", 1)

    assert result.get(timeout=30) == "served"
    assert sample.audited(result.id) == [(0, "parked", "CIRCUIT_BREAKER_ERROR")]


def test_a_task_may_raise_at_an_open_breaker_and_says_when_to_come_back(sample: Sample) -> None:
    _trip(sample, "raising")

    task_id, error = sample.failure("raising")

    assert isinstance(error, CircuitBreakerError)
    assert error.retry_at is not None
    assert sample.audited(task_id) == [(0, "failed", "CIRCUIT_BREAKER_ERROR")]


def test_a_task_without_a_breaker_always_tries(sample: Sample) -> None:
    for _ in range(7):
        assert isinstance(sample.failure("unguarded")[1], ServiceUnavailableError)


def test_bad_input_opens_no_breaker(sample: Sample) -> None:
    for _ in range(4):
        assert isinstance(sample.failure("invalid")[1], ValidationError)

    assert runtime_of(sample.app).breakers.get_status("lab-strict")["state"] == "closed"


def test_a_fallback_task_stands_in_after_the_last_attempt_and_is_marked(sample: Sample) -> None:
    result = sample.task("with_spare").delay(7)

    shown = result.get(timeout=30)

    assert shown["value"] == 7
    assert shown["_fallback"] is True
    assert "attempts" in shown["_primary_error"]
    outcomes = [(attempt, outcome) for attempt, outcome, _ in sample.audited(result.id)]
    assert outcomes == [(0, "retry"), (1, "fallback")]


def test_a_fallback_takes_the_place_of_its_task_in_chains_and_chords(sample: Sample) -> None:
    ok, spared = sample.task("ok"), sample.task("with_spare")

    in_chain = chain(ok.si(1), spared.si(5), ok.s())().get(timeout=30)
    in_chord = chord([spared.si(1), ok.si(2)])(ok.s()).get(timeout=30)

    assert in_chain["value"] == 5
    assert [in_chord[0]["value"], in_chord[1]] == [1, 2]


def test_both_failing_is_told_with_both_codes(sample: Sample) -> None:
    error = sample.failure("with_broken_spare", 1)[1]

    assert isinstance(error, FallbackFailedError)
    assert error.details["primary_error_code"] == "SERVICE_UNAVAILABLE"
    assert error.details["fallback_error_code"] == "SERVICE_UNAVAILABLE"


def test_a_registered_fallback_does_not_claim_that_there_is_no_bias(sample: Sample) -> None:
    shown = sample.run("with_registered")

    assert shown["bias_detected"] is None
    assert shown["requires_review"] is True
    assert shown["_fallback"] is True


def test_a_fallback_stands_in_at_once_where_the_breaker_is_open(sample: Sample) -> None:
    for _ in range(2):
        assert sample.run("spare_when_open", 3)["_fallback"] is True
    result = sample.task("spare_when_open").delay(4)

    assert result.get(timeout=30)["value"] == 4
    assert sample.audited(result.id) == [(0, "fallback", "CIRCUIT_BREAKER_ERROR")]


@pytest.mark.parametrize(
    ("name", "kind"), [("finding", BiasDetectionError), ("intruder", AuthenticationError)]
)
def test_a_fallback_never_hides_a_finding_or_an_intruder(sample: Sample, name: str, kind: type) -> None:
    assert isinstance(sample.failure(name, 1)[1], kind)


@pytest.mark.parametrize("name", ["with_spare", "spare_when_open"])
def test_a_fallback_works_in_eager_mode(sample: Sample, name: str) -> None:
    shown = sample.task(name).apply((9,)).get()

    assert shown["value"] == 9
    assert shown["_fallback"] is True


def test_what_fails_for_good_becomes_a_dead_letter_that_can_be_replayed(sample: Sample) -> None:
    runtime = runtime_of(sample.app)
    task_id = sample.failure("doomed", "!")[0]
    letters = wait_until(
        lambda: [kept for kept in runtime.dead_letters.list() if kept.task_id == task_id], "a letter"
    )
    assert letters[0].error["error_code"] == "SERVICE_UNAVAILABLE"
    sample.redis.set(UP + "lab-letter", 1)

    again = replay(sample.app, runtime.dead_letters, letters[0].letter_id, runtime.breakers)

    assert sample.app.AsyncResult(again).get(timeout=30) == "served!"
    assert letters[0].letter_id not in [kept.letter_id for kept in runtime.dead_letters.list()]


def test_a_replayed_letter_goes_on_with_the_rest_of_its_chain(sample: Sample) -> None:
    runtime = runtime_of(sample.app)
    sample.redis.delete(UP + "lab-letter")
    flow = chain(sample.task("doomed").si("a"), sample.task("doomed").s())()
    first = flow.parent
    first.get(timeout=30, propagate=False)
    letter = wait_until(
        lambda: next((kept for kept in runtime.dead_letters.list() if kept.task_id == first.id), None),
        "a letter",
    )
    sample.redis.set(UP + "lab-letter", 1)

    replay(sample.app, runtime.dead_letters, letter.letter_id, None)

    # Celery has failed the rest of the chain with its first task; the replay makes up for it.
    wait_until(lambda: sample.app.AsyncResult(flow.id).state == "SUCCESS", "the chain's end")
    assert sample.app.AsyncResult(flow.id).get(timeout=30) == "servedserveda"


def test_a_replay_into_an_outage_is_refused_and_the_letter_stays(sample: Sample) -> None:
    runtime = runtime_of(sample.app)
    sample.redis.delete(UP + "lab-parking")
    runtime.breakers.get("lab-parking").open_for(30)
    task_id = sample.failure("doomed_behind_parking")[0]
    letter = wait_until(
        lambda: next((kept for kept in runtime.dead_letters.list() if kept.task_id == task_id), None),
        "a letter",
    )

    with pytest.raises(CircuitBreakerError, match="--force"):
        replay(sample.app, runtime.dead_letters, letter.letter_id, runtime.breakers)

    assert runtime.dead_letters.get(letter.letter_id) == letter
    runtime.breakers.manual_reset("lab-parking")


def test_a_task_waits_for_a_person_and_then_goes_on_under_its_own_id(sample: Sample) -> None:
    runtime = runtime_of(sample.app)
    result = sample.task("needs_a_person").delay(42)
    letter = wait_until(
        lambda: next((kept for kept in runtime.interventions.list() if kept.task_id == result.id), None),
        "an intervention",
    )
    wait_until(lambda: result.state == "RETRY", "waiting")
    sample.redis.set(UP + "lab-person", 1)

    replay(sample.app, runtime.interventions, letter.letter_id, runtime.breakers)

    assert result.get(timeout=30) == 42
    assert sample.audited(result.id) == [(0, "parked", "VALIDATION_ERROR")]


def test_transitions_of_breakers_are_recorded_once(sample: Sample) -> None:
    runtime = runtime_of(sample.app)
    runtime.breakers.get("lab-recorded").open_for(5, reason="asked to")

    def record() -> int:
        return record_transitions(runtime.breakers, runtime.audit, runtime.redis, 30)

    assert record() >= 1
    assert record() == 0


def test_no_argument_of_a_kept_task_is_readable_in_redis(sample: Sample) -> None:
    canary = "canary-doomed-9917"
    sample.redis.delete(UP + "lab-letter")
    task_id = sample.failure("doomed", canary)[0]
    runtime = runtime_of(sample.app)
    wait_until(lambda: [kept for kept in runtime.dead_letters.list() if kept.task_id == task_id], "a letter")

    leaking: list[Any] = [
        key for key in sample.redis.scan_iter() if canary.encode() in (sample.redis.dump(key) or b"")
    ]

    assert leaking == []


def test_retries_of_tasks_are_counted_over_all_processes(sample: Sample) -> None:
    registry = runtime_of(sample.app).retry_registry
    before = registry.get_statistics("sample.flaky")

    assert [sample.run("flaky", times) for times in (0, 2)] == [0, 2]

    def counted() -> bool:
        # A process tells its counts with the first event after a second.
        sample.run("flaky", 0)
        distribution = registry.get_statistics("sample.flaky")["retry_distribution"]
        return bool(distribution.get("2", 0) > before["retry_distribution"].get("2", 0))

    wait_until(counted, "the counts of the worker's children")
