from __future__ import annotations

import fcntl
import logging
import os
import resource
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from techdeck_tasks.audit.writing.spool import MAX_DAMAGED_FILES, MAX_FILE_BYTES, Spool, SpoolFullError

# Newer Pythons warn of forking beside threads, which is what a Celery worker does.
pytestmark = pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")


class Taken(list[bytes]):
    def take(self, payloads: Sequence[bytes]) -> None:
        self.extend(payloads)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "spool"


@pytest.fixture
def spool(folder: Path) -> Spool:
    return Spool(folder)


def _child(body: Callable[[], None]) -> int:
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            body()
            code = 0
        finally:
            os._exit(code)
    return pid


def _files(folder: Path) -> list[str]:
    return sorted(path.suffix for path in folder.iterdir())


def test_what_is_appended_is_drained_in_order_and_once(spool: Spool, folder: Path) -> None:
    kept = [b"", b"one", bytes(70_000)]
    for payload in kept:
        spool.append(payload)
    taken = Taken()
    assert not spool.is_empty()
    assert spool.drain(taken.take) == 3
    assert taken == kept
    assert spool.is_empty()
    assert spool.drain(taken.take) == 0
    assert not list(folder.iterdir())


def test_a_spool_that_was_never_used_is_empty_and_makes_no_folder(spool: Spool, folder: Path) -> None:
    assert spool.is_empty()
    assert spool.drain(Taken().take) == 0
    assert not folder.exists()


def test_folder_and_files_are_the_owners_alone(spool: Spool, folder: Path) -> None:
    spool.append(b"x")
    (path,) = folder.iterdir()
    assert (folder.stat().st_mode & 0o777, path.stat().st_mode & 0o777) == (0o700, 0o600)


def test_files_are_bounded_and_drained_oldest_first_as_many_as_asked(spool: Spool, folder: Path) -> None:
    kept = [bytes([number]) * (MAX_FILE_BYTES // 2) for number in range(6)]
    for payload in kept:
        spool.append(payload)
    assert len(list(folder.iterdir())) == 3
    taken = Taken()
    assert spool.drain(taken.take, max_files=1) == 2
    assert taken == kept[:2]
    assert spool.drain(taken.take) == 4
    assert taken == kept


def test_what_could_not_be_sent_stays_and_is_sent_again(spool: Spool) -> None:
    spool.append(b"one")

    def refuse(payloads: Sequence[bytes]) -> None:
        raise ConnectionError

    with pytest.raises(ConnectionError):
        spool.drain(refuse)
    spool.append(b"two")
    taken = Taken()
    spool.drain(taken.take)
    assert taken == [b"one", b"two"]


def test_an_event_spooled_while_its_file_is_drained_goes_to_another_file(spool: Spool) -> None:
    spool.append(b"one")
    taken = Taken()

    def send(payloads: Sequence[bytes]) -> None:
        spool.append(b"two")
        taken.extend(payloads)

    assert spool.drain(send) == 1
    assert not spool.is_empty()
    spool.drain(taken.take)
    assert taken == [b"one", b"two"]


def test_a_file_that_another_process_holds_is_left_to_it(spool: Spool, folder: Path) -> None:
    spool.append(b"one")
    (path,) = folder.iterdir()
    with path.open("rb") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        assert spool.drain(Taken().take) == 0
        spool.append(b"two")
    taken = Taken()
    spool.drain(taken.take)
    assert taken == [b"one", b"two"]


def test_an_idle_process_leaves_its_events_to_whoever_drains(spool: Spool, folder: Path) -> None:
    spool.append(b"one")
    taken = Taken()
    Spool(folder).drain(taken.take)
    assert taken == [b"one"]
    spool.append(b"two")
    Spool(folder).drain(taken.take)
    assert taken == [b"one", b"two"]


def test_threads_append_while_others_drain_and_each_payload_arrives_once(spool: Spool) -> None:
    taken, lock = Taken(), threading.Lock()
    done = threading.Event()

    def take(payloads: Sequence[bytes]) -> None:
        with lock:
            taken.extend(payloads)

    def drain() -> None:
        while not done.is_set():
            spool.drain(take)

    kept = [f"{number}".encode() for number in range(300)]
    with ThreadPoolExecutor(6) as pool:
        drains = [pool.submit(drain) for _ in range(2)]
        list(pool.map(spool.append, kept))
        done.set()
        for drained in drains:
            drained.result()
    spool.drain(take)
    assert sorted(taken) == sorted(kept)
    assert spool.damaged == 0


def test_processes_append_and_drain_one_folder_and_each_payload_arrives_once(folder: Path) -> None:
    taken_by = folder.parent / "taken"
    taken_by.mkdir()

    def append(name: str) -> None:
        spool = Spool(folder)
        for number in range(60):
            spool.append(f"{name}-{number}".encode())

    def drain(name: str) -> None:
        spool, taken = Spool(folder), Taken()
        for _ in range(80):
            spool.drain(taken.take)
        (taken_by / name).write_bytes(b"\n".join(taken))

    children = [_child(lambda name=name: append(name)) for name in ("a", "b", "c")]  # type: ignore[misc]  # bound early
    children += [_child(lambda name=name: drain(name)) for name in ("x", "y")]  # type: ignore[misc]  # as above
    assert [os.waitpid(pid, 0)[1] for pid in children] == [0] * 5
    taken = Taken(line for path in taken_by.iterdir() for line in path.read_bytes().splitlines())
    spool = Spool(folder)
    spool.drain(taken.take)
    assert sorted(taken) == sorted(f"{name}-{n}".encode() for name in "abc" for n in range(60))


_APPENDER = """
import sys
from pathlib import Path
from techdeck_tasks.audit.writing.spool import Spool
spool = Spool(Path(sys.argv[1]))
number = 0
while True:
    spool.append(str(number).encode() * 500)
    print(number, flush=True)
    number += 1
"""


def test_a_sigkill_at_any_moment_loses_no_event_whose_append_returned(folder: Path) -> None:
    acknowledged: list[int] = []
    for _ in range(3):
        with subprocess.Popen(
            [sys.executable, "-c", _APPENDER, str(folder)], stdout=subprocess.PIPE, text=True
        ) as process:
            assert process.stdout is not None
            lines = [process.stdout.readline() for _ in range(40)]
            process.send_signal(signal.SIGKILL)
            lines += process.stdout.readlines()
        acknowledged += [int(line) for line in lines if line.endswith("\n")]
    spool, taken = Spool(folder), Taken()
    spool.drain(taken.take)
    expected = [str(number).encode() * 500 for number in acknowledged]
    # The last append of each process may have ended before its line was out.
    assert len(expected) <= len(taken) <= len(expected) + 3
    assert not [payload for payload in expected if payload not in taken]
    assert spool.damaged == 0


def test_a_forked_child_spools_beside_its_parent(spool: Spool, folder: Path) -> None:
    spool.append(b"parent 1")
    child = _child(lambda: spool.append(b"child"))
    spool.append(b"parent 2")
    assert os.waitpid(child, 0)[1] == 0
    spool.append(b"parent 3")
    taken = Taken()
    spool.drain(taken.take)
    assert sorted(taken) == [b"child", b"parent 1", b"parent 2", b"parent 3"]


def test_a_child_forked_while_a_thread_spools_can_spool_too(spool: Spool) -> None:
    stop = threading.Event()

    def append() -> None:
        while not stop.is_set():
            spool.append(b"thread")

    thread = threading.Thread(target=append)
    thread.start()
    try:
        children = [_child(lambda: spool.append(b"child")) for _ in range(10)]
        assert [os.waitpid(pid, 0)[1] for pid in children] == [0] * 10
    finally:
        stop.set()
        thread.join()
    taken = Taken()
    spool.drain(taken.take)
    assert taken.count(b"child") == 10
    assert spool.damaged == 0


def test_a_full_disk_is_told_keeps_nothing_of_the_event_and_harms_no_other(folder: Path) -> None:
    # A limit on the size of files, in a process of its own, fails as a full disk does: amid a frame.
    def body() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        spool = Spool(folder)
        spool.append(b"before")
        resource.setrlimit(resource.RLIMIT_FSIZE, (1000, resource.RLIM_INFINITY))
        with pytest.raises(OSError, match="File too large"):
            spool.append(bytes(5000))
        resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
        spool.append(b"after")

    assert os.waitpid(_child(body), 0)[1] == 0
    spool, taken = Spool(folder), Taken()
    spool.drain(taken.take)
    assert taken == [b"before", b"after"]
    assert spool.damaged == 0


def test_a_folder_that_cannot_be_made_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(OSError, match="Not a directory"):
        Spool(tmp_path / "file" / "spool").append(b"x")


def _damage(path: Path, position: int) -> None:
    content = bytearray(path.read_bytes())
    content[position] ^= 0xFF
    path.write_bytes(content)


def test_a_damaged_payload_costs_itself_alone_and_the_file_is_kept(
    spool: Spool, folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for payload in (b"first", b"second", b"third"):
        spool.append(payload)
    (path,) = folder.iterdir()
    _damage(path, path.read_bytes().index(b"second"))
    taken = Taken()
    with caplog.at_level(logging.ERROR):
        spool.drain(taken.take)
    assert taken == [b"first", b"third"]
    assert _files(folder) == [".damaged"]
    assert spool.damaged == 1
    assert "is damaged" in caplog.text
    assert spool.is_empty()


def test_a_damaged_header_costs_what_follows_and_the_file_is_kept(spool: Spool, folder: Path) -> None:
    for payload in (b"first", b"second", b"third"):
        spool.append(payload)
    (path,) = folder.iterdir()
    _damage(path, path.read_bytes().index(b"second") - 12)
    taken = Taken()
    spool.drain(taken.take)
    assert taken == [b"first"]
    assert _files(folder) == [".damaged"]
    assert spool.damaged == 1


def test_a_tail_of_zeros_after_a_power_failure_is_kept_and_told(spool: Spool, folder: Path) -> None:
    spool.append(b"first")
    (path,) = folder.iterdir()
    with path.open("ab") as file:
        file.write(bytes(100))
    taken = Taken()
    spool.drain(taken.take)
    assert taken == [b"first"]
    assert spool.damaged == 1


def test_damaged_payloads_are_kept_also_where_sending_failed_before(spool: Spool, folder: Path) -> None:
    for payload in (b"first", b"second"):
        spool.append(payload)
    (path,) = folder.iterdir()
    _damage(path, path.read_bytes().index(b"second"))

    def refuse(payloads: Sequence[bytes]) -> None:
        raise ConnectionError

    with pytest.raises(ConnectionError):
        spool.drain(refuse)
    assert (spool.damaged, _files(folder)) == (0, [".spool"])
    taken = Taken()
    spool.drain(taken.take)
    assert (taken, spool.damaged) == ([b"first"], 1)


def test_what_is_spooled_after_damage_was_set_aside_goes_to_another_file(spool: Spool, folder: Path) -> None:
    spool.append(b"first")
    (path,) = folder.iterdir()
    _damage(path, 8)
    spool.drain(Taken().take)
    spool.append(b"second")
    taken = Taken()
    spool.drain(taken.take)
    assert taken == [b"second"]


def test_only_the_newest_damaged_files_are_kept(spool: Spool, folder: Path) -> None:
    for number in range(MAX_DAMAGED_FILES + 3):
        spool.append(str(number).encode())
        (path,) = folder.glob("*.spool")
        _damage(path, 8)
        spool.drain(Taken().take)
    kept = sorted(path.read_bytes()[-1:] for path in folder.glob("*.damaged"))
    assert len(kept) == spool.size().damaged_files == MAX_DAMAGED_FILES
    assert spool.damaged == MAX_DAMAGED_FILES + 3


def test_a_full_spool_refuses_keeps_what_it_has_and_takes_more_once_it_was_drained(folder: Path) -> None:
    spool = Spool(folder, max_bytes=1000)
    spool.append(bytes(400))
    Spool(folder, max_bytes=1000).append(bytes(400))
    with pytest.raises(SpoolFullError, match="1,000 bytes"):
        spool.append(bytes(400))
    size = spool.size()
    assert (size.files, size.damaged_files) == (2, 0)
    assert 800 < size.size_bytes <= 1000
    assert spool.drain(Taken().take) == 2
    spool.append(bytes(400))
    assert spool.size().files == 1


def test_a_file_that_cannot_be_read_is_told_of_once_and_holds_up_no_other(
    spool: Spool, folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    spool.append(b"one")
    (folder / "00000000000000000000-of-somebody-else.spool").mkdir()
    taken = Taken()
    assert [spool.drain(taken.take, max_files=1) for _ in range(3)] == [1, 0, 0]
    assert taken == [b"one"]
    assert len([record for record in caplog.records if "cannot be read" in record.message]) == 1
    assert not spool.is_empty(), "it is still there, to be mended"


@pytest.mark.parametrize("kind", ["link", "endless", "loop", "pipe"])
def test_a_link_or_pipe_in_the_place_of_a_file_is_neither_read_nor_removed_and_holds_up_nobody(
    kind: str, spool: Spool, folder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    other = tmp_path / "other"
    other.write_bytes(bytes(1 << 20))
    spool.append(b"one")
    planted = folder / "00000000000000000000-planted.spool"
    if kind == "pipe":
        os.mkfifo(planted)
    else:
        planted.symlink_to({"link": other, "endless": Path("/dev/zero"), "loop": planted}[kind])
    spool.append(b"two")
    assert spool.size().size_bytes < 1 << 10
    taken = Taken()
    assert spool.drain(taken.take) == 2
    assert taken == [b"one", b"two"]
    assert "cannot be read" in caplog.text
    assert list(folder.iterdir()) == [planted]
    assert other.read_bytes() == bytes(1 << 20)
