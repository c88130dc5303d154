"""Every process in the catalogue passes its drill; and the drill notices what it is there to notice."""

import subprocess
import sys
from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor

import pytest

from dev.drill.__main__ import table
from dev.drill.play import FAULTS, Place, Seen, places, way
from processes import CATALOGUE
from processes.vendor_onboarding import VENDOR_ONBOARDING

Drills = Mapping[str, Future[subprocess.CompletedProcess[str]]]

AT_ONCE = 1  # a drill keeps one core busy, and the other process of `make test` the other
PATIENCE = 1700  # seconds, where one takes some 300; then pytest would end everything


@pytest.fixture(scope="module")
def drills() -> Iterator[Drills]:
    """The drill of every process, under way."""
    with ThreadPoolExecutor(AT_ONCE) as pool:
        yield {process: pool.submit(drill, process) for process in CATALOGUE}


def drill(process: str) -> subprocess.CompletedProcess[str]:
    order = [sys.executable, "-m", "cli.main", "drill", process]
    return subprocess.run(order, capture_output=True, text=True, timeout=PATIENCE, check=False)


@pytest.mark.parametrize("process", list(CATALOGUE))
def test_every_promise_is_kept(drills: Drills, process: str):
    played = drills[process].result()
    assert played.returncode == 0, played.stdout[-8000:] + played.stderr[-2000:]
    for place in places(CATALOGUE[process]):
        assert f"{place.transition.name} / {place.address}\n" in played.stdout
    for fault in FAULTS:
        assert fault in played.stdout


def test_an_unknown_process_is_named():
    played = subprocess.run(
        [sys.executable, "-m", "cli.main", "drill", "no_such"],
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    assert played.returncode == 2
    assert "vendor_onboarding" in played.stderr


class TestPlaces:
    def test_every_step_and_every_compensation_is_played_once(self):
        found = [place.address for place in places(VENDOR_ONBOARDING)]
        steps = VENDOR_ONBOARDING.steps.values()
        assert sorted(found) == sorted([*(s.name for s in steps), *(f"{s.name}:undo" for s in steps if s.compensable)])

    def test_the_way_to_a_transition_is_the_one_where_all_goes_well(self):
        reinstate = VENDOR_ONBOARDING.transition("reinstate")
        assert reinstate is not None
        assert [taken.name for taken in way(VENDOR_ONBOARDING, reinstate)] == ["submit", "approve", "suspend"]


def test_a_broken_promise_stands_in_the_table():
    place: Place = places(VENDOR_ONBOARDING)[0]
    row = Seen(place, "reject", condition="blocked", broken=["a dead end"])
    assert any("BROKEN: a dead end" in line for line in table([row]))
