"""docs/adding-a-process.md, executed: its blocks in a copy of this tree, checked and played on a stack of its own."""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from dev.service import ROOT
from tests.faults.newer import tree

PAGE = ROOT / "docs" / "adding-a-process.md"
BLOCK = re.compile(r"^```(\w+)\n# ([\w/]+\.py)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
NEW_FILES = {
    "processes/expense_claim.py",
    "workflows/expense_claim.py",
    "activities/expense_claim.py",
    "partners/payroll.py",
    "dev/sandbox/partners/payroll.py",
    "tests/processes/expense_claim.py",
    "tests/acceptance/test_expense_claim.py",
}
CHANGED_FILES = {"processes/__init__.py", "partners/__init__.py", "dev/sandbox/partners/__init__.py"}


@dataclass(frozen=True)
class Block:
    """What the page has somebody write."""

    kind: str
    path: str
    text: str


def blocks() -> Iterator[Block]:
    for kind, path, text in BLOCK.findall(PAGE.read_text()):
        yield Block(kind, path, text)


def written(text: str, diff: str) -> str:
    """A file after somebody did what a diff says; each place must be there exactly once."""
    for hunk in diff.removesuffix("\n").split("\n@@\n"):
        lines = [(line[:1], line[1:]) for line in hunk.split("\n")]
        assert {sign for sign, _ in lines} <= {" ", "+"}, hunk
        before = "\n".join(line for sign, line in lines if sign == " ")
        assert f"\n{text}".count(f"\n{before}\n") == 1, f"not there once:\n{before}"
        text = f"\n{text}".replace(f"\n{before}\n", "\n" + "\n".join(line for _, line in lines) + "\n")[1:]
    return text


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """This tree, and what the page adds to it."""
    folder = tree(tmp_path_factory.mktemp("fifth"))
    shutil.copytree(ROOT / "tests", folder / "tests", ignore=shutil.ignore_patterns("__pycache__", "histories"))
    shutil.copy(ROOT / "pyproject.toml", folder)
    for block in blocks():
        path = folder / block.path
        if block.kind == "diff":
            path.write_text(written(path.read_text(), block.text))
        else:
            assert not path.exists(), f"{block.path} would be overwritten"
            path.write_text(block.text)
    return folder


def run(copy: Path, *command: str) -> str:
    """As somebody at a terminal in the copy does it; what it printed."""
    names = {name: value for name, value in os.environ.items() if not name.startswith("CASEWARD_")}
    done = subprocess.run(command, cwd=copy, env=names, capture_output=True, text=True, check=False, timeout=600)
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
    return done.stdout


def python(copy: Path, *arguments: str) -> str:
    return run(copy, sys.executable, "-m", *arguments)


def test_nothing_else_is_written_than_the_page_says():
    found = list(blocks())
    assert {block.path for block in found if block.kind == "python"} == NEW_FILES
    assert {block.path for block in found if block.kind == "diff"} == CHANGED_FILES
    whole = re.findall(r"^```(?:python|diff)\n", PAGE.read_text(), re.MULTILINE)
    assert len(whole) == len(found), "a block does not say where it belongs"


def test_is_sound(copy: Path):
    assert python(copy, "cli.main", "check", "expense_claim").startswith("expense_claim: sound")


def test_reads_like_the_rest(copy: Path):
    ruff = str(Path(sys.executable).with_name("ruff"))
    run(copy, ruff, "format", "--check", *sorted(NEW_FILES | CHANGED_FILES))
    run(copy, ruff, "check", *sorted(NEW_FILES))
    run(copy, ruff, "check", "--fix", *sorted(CHANGED_FILES))  # the imports' order, as `make format` does it


def test_its_own_tests_pass_on_a_stack_of_its_own(copy: Path):
    """Filed, approved, paid; a blocked payment repaired; a claim withdrawn: by HTTP, with the partners' sandbox."""
    told = python(
        copy,
        *("pytest", "-p", "no:cacheprovider", "-rA"),
        *("tests/unit/test_playbooks.py", "tests/acceptance/test_expense_claim.py"),
    )
    passed = set(re.findall(r"^PASSED tests/acceptance/test_expense_claim\.py::(\w+)$", told, re.MULTILINE))
    text = (copy / "tests" / "acceptance" / "test_expense_claim.py").read_text()
    assert passed == set(re.findall(r"^async def (test_\w+)", text, re.MULTILINE)) != set()
    assert len(re.findall(r"^PASSED tests/unit/test_playbooks\.py::\w+\[expense_claim\]$", told, re.MULTILINE)) == 4
