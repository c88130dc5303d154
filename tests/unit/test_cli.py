"""`caseward check`: each fault on its line, and an exit code a script can use."""

import re
import sys
from datetime import UTC, datetime, timedelta
from types import ModuleType

import pytest
from typer.testing import CliRunner

from caseward.errors import DeclarationInvalid
from cli.asking import instant
from cli.main import cli


class Faulty(ModuleType):
    """`processes`, as it fails to load when declarations are wrong."""

    __path__: list[str] = []  # noqa: RUF012 - what makes it a package

    def __getattr__(self, name: str):
        if name == "CATALOGUE":
            raise DeclarationInvalid(["booking: state held: can't be reached", "refund: nobody may take it"])
        raise AttributeError(name)


class TestCheck:
    def test_sound_declarations_are_called_so(self):
        done = CliRunner().invoke(cli, ["check", "vendor_onboarding"])
        size = "12 states, 10 transitions, 10 steps"
        said = rf"vendor_onboarding: sound \({size}; \d+ situations, \d+ commands, \d+ outcomes, \d+ replays\)\n"
        assert done.exit_code == 0
        assert re.fullmatch(said, done.output)

    @pytest.mark.parametrize(
        ("arguments", "lines"),
        [
            (["check"], ["booking: state held: can't be reached", "refund: nobody may take it"]),
            (["check", "refund"], ["refund: nobody may take it"]),
            (["check", "loan"], ["loan: not checked any further, other processes have faults"]),
        ],
    )
    def test_each_fault_is_printed(self, monkeypatch, arguments, lines):
        monkeypatch.setitem(sys.modules, "processes", Faulty("processes"))
        done = CliRunner().invoke(cli, arguments)
        assert (done.exit_code, done.output.splitlines()) == (1, lines)


class TestInstants:
    @pytest.mark.parametrize(
        ("said", "ago"), [("90s", 90), ("30min", 1800), ("2h", 7200), ("2 h", 7200), ("1d", 86400)]
    )
    def test_how_long_ago(self, said, ago):
        before = datetime.now(UTC)
        found = instant(said) + timedelta(seconds=ago)
        assert before <= found <= datetime.now(UTC)

    def test_as_in_iso_8601(self):
        assert instant("2026-05-03T10:04:05.123456Z") == datetime(2026, 5, 3, 10, 4, 5, 123456, UTC)
        here = datetime(2026, 5, 3, 10, 4).astimezone()
        assert instant("2026-05-03 10:04") == here

    @pytest.mark.parametrize("said", ["", "teatime", "2 weeks", "h", "-2h", "2026-13-01", "0001-01-01"])
    def test_nothing_else(self, said):
        with pytest.raises(ValueError, match=r"\w"):
            instant(said)
