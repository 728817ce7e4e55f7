"""The spool file under any damage: what is whole is sent, what is not is never silent."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

from hypothesis import given, settings
from hypothesis import strategies as st

from techdeck_tasks.audit.writing.spool import Spool

payloads = st.lists(st.binary(max_size=60), min_size=1, max_size=6)


class Taken(list[bytes]):
    def take(self, payloads: Sequence[bytes]) -> None:
        self.extend(payloads)


def _spooled(folder: Path, payloads: list[bytes]) -> Path:
    spool = Spool(folder)
    for payload in payloads:
        spool.append(payload)
    (path,) = folder.glob("*.spool")
    return path


@settings(max_examples=60, deadline=None)
@given(payloads, st.data())
def test_a_file_torn_at_any_byte_gives_the_whole_frames_and_no_damage(
    kept: list[bytes], data: st.DataObject
) -> None:
    with TemporaryDirectory() as name:
        folder = Path(name)
        path = _spooled(folder, kept)
        size = path.stat().st_size
        cut = data.draw(st.integers(0, size))
        with path.open("r+b") as file:
            file.truncate(cut)
        spool, taken = Spool(folder), Taken()
        assert spool.drain(taken.take) == len(taken)
        assert taken == kept[: len(taken)]
        assert cut < size or taken == kept
        assert spool.damaged == 0
        assert not list(folder.iterdir())


@settings(max_examples=60, deadline=None)
@given(payloads, st.data())
def test_a_changed_byte_is_never_silent_and_costs_no_frame_before_it(
    kept: list[bytes], data: st.DataObject
) -> None:
    with TemporaryDirectory() as name:
        folder = Path(name)
        path = _spooled(folder, kept)
        content = bytearray(path.read_bytes())
        position = data.draw(st.integers(0, len(content) - 1))
        content[position] ^= data.draw(st.integers(1, 255))
        path.write_bytes(content)
        spool, taken = Spool(folder), Taken()
        spool.drain(taken.take)
        lost = len(kept) - len(taken)
        assert lost >= 1
        assert set(taken) <= set(kept)
        assert spool.damaged == 1
        assert [kept.suffix for kept in folder.iterdir()] == [".damaged"]
