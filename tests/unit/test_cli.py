"""`caseward check`: each fault on its line, and an exit code a script can use."""

import re
import sys
from types import ModuleType

import pytest
from typer.testing import CliRunner

from caseward.errors import DeclarationInvalid
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
