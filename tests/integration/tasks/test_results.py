"""Results that somebody at Redis has put in the place of others."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from celery import chord, group
from celery.exceptions import ChordError
from celery.result import AsyncResult, GroupResult
from worker_site import Sample, make_sample, wait_until

from techdeck_tasks.errors import EncryptionError

NOT_ITS_OWN = "was sealed for another"


def _key(result: Any) -> str:
    return f"celery-task-meta-{result.id}"


@pytest.fixture
def swapped(sample: Sample) -> Iterator[tuple[Any, Any]]:
    """The results of two tasks that succeeded, each under the other's key."""
    results = [sample.task("ok").delay(value) for value in ("mine", "yours")]
    for result in results:
        result.get(timeout=30)
    # Another process would read them: this one may still hear of a result from the worker itself.
    reader = make_sample(sample.site)
    mine, yours = [AsyncResult(result.id, app=reader.app) for result in results]
    stored: list[Any] = [sample.redis.get(_key(result)) for result in (mine, yours)]
    sample.redis.set(_key(mine), stored[1])
    sample.redis.set(_key(yours), stored[0])
    yield mine, yours
    # Still waited for, since their answers were refused; Redis may be gone when they are collected.
    for result in (mine, yours):
        result.backend.remove_pending_result(result)


def test_a_result_under_another_tasks_id_is_refused(swapped: tuple[Any, Any]) -> None:
    for result in swapped:
        with pytest.raises(EncryptionError, match=NOT_ITS_OWN):
            result.get(timeout=5)
        with pytest.raises(EncryptionError, match=NOT_ITS_OWN):
            _ = result.state


def test_results_read_together_are_refused_as_well(swapped: tuple[Any, Any]) -> None:
    with pytest.raises(EncryptionError, match=NOT_ITS_OWN):
        list(swapped[0].backend.get_many([result.id for result in swapped], timeout=5))


@pytest.mark.parametrize("planted", ["sealed", "garbage"])
def test_what_was_planted_does_not_stand_in_the_way_of_the_task_itself(sample: Sample, planted: str) -> None:
    other = sample.task("ok").delay("other")
    other.get(timeout=30)
    task_id = f"planted-{planted}-{other.id}"
    blob: Any = sample.redis.get(_key(other)) if planted == "sealed" else b"\x01\x02no sealed result"
    sample.redis.set(f"celery-task-meta-{task_id}", blob, ex=60)
    with pytest.raises(EncryptionError, match=NOT_ITS_OWN):
        _ = AsyncResult(task_id, app=sample.app).state
    result = sample.task("ok").apply_async(("own",), task_id=task_id)

    def own() -> bool:
        try:
            return bool(result.state == "SUCCESS")
        except EncryptionError:
            return False

    wait_until(own, "the task's own result")
    assert result.get(timeout=5) == "own"
    assert sample.audited(task_id) == []


@pytest.mark.filterwarnings("ignore:Call to deprecated setex")  # Celery's, where a group is saved
def test_a_group_under_another_groups_id_is_refused(sample: Sample) -> None:
    groups = [group(sample.task("ok").s(number) for number in range(2)).apply_async() for _ in range(2)]
    for one in groups:
        one.get(timeout=30)
        one.save()
    first, second = (f"celery-taskset-meta-{one.id}" for one in groups)
    sample.redis.copy(second, first, replace=True)
    sample.app.backend._cache.clear()
    with pytest.raises(EncryptionError, match=NOT_ITS_OWN):
        GroupResult.restore(groups[0].id, app=sample.app)
    restored = GroupResult.restore(groups[1].id, app=sample.app)
    assert restored is not None
    assert restored.get(timeout=5) == [0, 1]


def test_a_member_of_another_chord_is_not_counted_into_this_one(sample: Sample) -> None:
    members = [sample.task("nap").s(f"{name}-chord", 20) for name in ("left", "right")]
    for name in ("left", "right"):
        sample.redis.delete(f"test:go:{name}-chord")
    ends = [
        chord([member, sample.task("nap").s(f"never-{number}", 8)])(sample.task("ok").s())
        for number, member in enumerate(members)
    ]
    groups = [end.parent.id for end in ends]
    for name in ("left", "right"):
        sample.redis.set(f"test:go:{name}-chord", "1", ex=30)
    for parts in groups:
        wait_until(lambda parts=parts: sample.redis.zcard(f"celery-taskset-meta-{parts}.j") == 1, "one part")
    first, second = (f"celery-taskset-meta-{one}.j" for one in groups)
    sample.redis.copy(second, first, replace=True)
    sample.redis.set("test:go:never-0", "1", ex=30)
    sample.redis.set("test:go:never-1", "1", ex=30)
    with pytest.raises(ChordError, match=NOT_ITS_OWN):
        ends[0].get(timeout=30)
    assert ends[1].get(timeout=30) == ["rested", "rested"]
