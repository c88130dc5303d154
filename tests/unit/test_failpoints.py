"""Failpoints as the kill matrix uses them: many wait at one place, and a file says who."""

import asyncio

import pytest

from caseward import failpoints


@pytest.fixture
def book(tmp_path):
    book = tmp_path / "book"
    book.touch()
    return book


@pytest.fixture(autouse=True)
def unarmed(monkeypatch):
    for name, fresh in {"_armed": {}, "_waiting": set(), "_reached": failpoints.Counter(), "_book": None}.items():
        monkeypatch.setattr(failpoints, name, fresh)


async def reach(name: str, *cases: object) -> bool:
    """Whether one gets past it."""
    passing = failpoints.failpoint(name, *cases)
    try:
        passing.send(None)
    except StopIteration:
        return True
    passing.close()
    return False


def test_an_unknown_name_is_refused():
    with pytest.raises(ValueError, match=r"no failpoint 'effect\.forgotten'"):
        failpoints.arm("effect.forgotten")


async def test_who_reaches_it_for_the_nth_time_waits_and_stands_in_the_file(book):
    failpoints.arm(f"effect.acted:2@{book}")
    assert await reach("effect.acted", "a")
    assert await reach("effect.settled", "a")
    assert not await reach("effect.acted", "a")
    assert await reach("effect.acted", "b")
    passed = [f"effect.acted:passed {case}\n" for case in "ab"]
    assert book.read_text() == f"{passed[0]}effect.acted a\n{passed[1]}"


async def test_before_the_file_exists_nobody_waits_and_nobody_counts(book):
    book.unlink()
    failpoints.arm(f"effect.acted:2@{book}")
    assert await reach("effect.acted", "a")
    assert await reach("effect.acted", "a")
    book.touch()
    assert await reach("effect.acted", "a")
    assert not await reach("effect.acted", "a")


async def test_who_stands_in_the_file_passes(book):
    book.write_text("effect.acted a\n")
    failpoints.arm(f"effect.acted@{book}")
    assert await reach("effect.acted", "a")
    assert not await reach("effect.acted", "b", "a")
    assert book.read_text() == "effect.acted a\neffect.acted b\n"


async def test_the_times_before_the_kill_count(book):
    failpoints.arm(f"effect.acted:2@{book}")
    assert await reach("effect.acted", "a")
    failpoints._reached.clear()  # as in the process that comes next
    failpoints.arm(f"effect.acted:2@{book}")
    assert not await reach("effect.acted", "a")


async def test_a_star_only_writes_down_who_passes(book):
    failpoints.arm(f"*@{book}")
    assert await reach("outbox.claimed", "a", "b")
    assert await reach("command.after_commit")
    assert book.read_text() == "outbox.claimed a\noutbox.claimed b\ncommand.after_commit -\n"


async def test_a_cancelled_one_goes_on_waiting(book):
    failpoints.arm(f"operation.before_finish@{book}")
    passing = failpoints.failpoint("operation.before_finish", "a")
    passing.send(None)
    passing.throw(asyncio.CancelledError())  # would raise if it got through
    passing.close()
