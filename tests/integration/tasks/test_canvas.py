"""Celery's canvas, as with `celery.Task`."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from celery import chain, chord, group
from celery.exceptions import TaskRevokedError
from worker_site import Sample, wait_until


def _get(result: Any) -> Any:
    return result.get(timeout=30)


def test_a_chain_hands_results_on(sample: Sample) -> None:
    assert _get(chain(sample.task("add").s(1, 2), sample.task("add").s(3), sample.task("add").s(4))()) == 10


def test_a_group_returns_all_results(sample: Sample) -> None:
    assert _get(group(sample.task("ok").s(number) for number in range(5))()) == list(range(5))


def test_a_chord_joins_its_header_even_where_members_are_retried(sample: Sample) -> None:
    header = [sample.task("flaky").si(times) for times in (0, 1, 2)]
    assert _get(chord(header)(sample.task("add").s())) == 3


def test_a_failed_member_fails_the_chord_and_its_body_does_not_run(sample: Sample) -> None:
    result = chord([sample.task("ok").si(1), sample.task("own_error").si("no")])(sample.task("add").s())
    error = result.get(timeout=30, propagate=False)
    assert type(error).__name__ == "ChordError"


def test_a_killed_member_of_a_chord_is_retried_and_counts_once(sample: Sample) -> None:
    header = [sample.task("killed").si(1), sample.task("ok").si(1)]
    assert _get(chord(header)(sample.task("add").s())) == 2


@pytest.mark.parametrize("in_chain", [False, True], ids=["member", "chain that is a member"])
def test_an_ignored_member_fails_the_chord_instead_of_hanging_it(sample: Sample, in_chain: bool) -> None:
    ok, ignored = sample.task("ok"), sample.task("ignored")
    member = chain(ignored.si(), ok.si(1)) if in_chain else ignored.si()
    result = chord([ok.si(1), member])(sample.task("add").s())
    error = result.get(timeout=30, propagate=False)
    assert type(error).__name__ == "ChordError"
    assert "raised Ignore inside a chord" in str(error)


def test_a_member_of_a_chord_may_be_replaced(sample: Sample) -> None:
    header = [sample.task("replaced").si(1), sample.task("ok").si(2)]
    assert _get(chord(header)(sample.task("add").s())) == 1 + 5 + 2


def test_a_retry_does_not_make_a_task_its_own_parent_in_the_audit(sample: Sample) -> None:
    flow = chain(sample.task("ok").si(1), sample.task("flaky").si(2))()
    _get(flow)
    told = [document["context"] for document in sample.documents(flow.id)]
    assert [context["parent_id"] for context in told] == [flow.parent.id] * 2
    alone = sample.task("flaky").delay(2)
    _get(alone)
    told = [document["context"] for document in sample.documents(alone.id)]
    assert [(context.get("parent_id"), context["root_id"]) for context in told] == [(None, alone.id)] * 2


def test_canvas_nests(sample: Sample) -> None:
    add, ok = sample.task("add"), sample.task("ok")
    flow = chain(
        group(chain(ok.si(1), add.s(1)), ok.si(3)),
        add.s(),
        group(add.s(1), add.s(2)),
        add.s(),
    )
    assert _get(flow()) == (5 + 1) + (5 + 2)


def test_map_starmap_and_chunks(sample: Sample) -> None:
    add = sample.task("add")
    assert _get(sample.task("ok").map([1, 2]).delay()) == [1, 2]
    assert _get(add.starmap([(1, 2), (3, 4)]).delay()) == [3, 7]
    assert _get(add.chunks([(1, 2), (3, 4), (5, 6)], 2)()) == [[3, 7], [11]]


def test_links_run_after_success_with_its_result(sample: Sample) -> None:
    linked = sample.task("add").s(10)
    linked.options["task_id"] = "linked-1"
    _get(sample.task("flaky").apply_async((1,), link=linked))
    assert _get(sample.app.AsyncResult("linked-1")) == 11


def test_a_link_survives_a_retry_and_an_immutable_one_takes_no_result(sample: Sample) -> None:
    linked = sample.task("ok").si("own")
    linked.options["task_id"] = "linked-2"
    _get(sample.task("flaky").apply_async((2,), link=linked))
    assert _get(sample.app.AsyncResult("linked-2")) == "own"


def test_a_task_that_expired_is_revoked(sample: Sample) -> None:
    result = sample.task("ok").apply_async(expires=datetime.now(UTC) - timedelta(seconds=1))
    wait_until(lambda: result.state == "REVOKED", "revoked")
    with pytest.raises(TaskRevokedError):
        result.get(timeout=5)


def test_a_countdown_and_a_priority_are_accepted(sample: Sample) -> None:
    assert _get(sample.task("ok").apply_async((1,), countdown=0.2)) == 1
    assert _get(sample.task("ok").apply_async((2,), priority=9)) == 2


def test_a_task_may_be_replaced_by_a_canvas(sample: Sample) -> None:
    assert _get(sample.task("replaced").delay(4)) == 9


def test_a_megabyte_comes_back(sample: Sample) -> None:
    assert len(_get(sample.task("big").delay(1_000_000))) == 1_000_000


def test_stamps_follow_a_chain_through_retries(sample: Sample) -> None:
    flow = chain(sample.task("flaky").si(1), sample.task("stamps").si())
    flow.stamp(site="north")
    assert _get(flow.apply_async()) == "north"
