"""`caseward check --against REV`, on revisions of a repository of its own: one refusal for each kind of change.

The repository is a copy of the engine and the command, with one small process that every change is made to by text.
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from dev.service import ROOT

PROCESS = '''\
"""Parcels."""

from typing import Annotated

from pydantic import Field

from caseward.process import Catalogue, ForceCancel, Process, Role, State, Step, Strict, Transition


class Parcel(Strict):
    to: Annotated[str, Field(max_length=200)]
    weight: int | None = None


class Grounds(Strict):
    grounds: Annotated[str, Field(max_length=500)]


class Receipt(Strict):
    number: str


BOOK = Step("book", "Book the carrier", partner="carrier", result=Receipt, undo="Cancel the carrier", owner="dispatch")
PRINT = Step("print", "Print the label", partner="carrier", result=Receipt, undo="Tear the label")

PARCEL = Process(
    "parcel",
    "Parcel",
    subject=Parcel,
    headline=lambda parcel: parcel.to,
    owner="mail_room",
    teams=frozenset({"mail_room", "dispatch"}),
    roles=(Role("clerk", "Clerk"), Role("head", "Head")),
    states=(
        State("draft", "Draft", "Nothing is sent yet.", waiting_on="head"),
        State("shipping", "Shipping", "We are sending it."),
        State("recalling", "Recalling", "We are taking it back."),
        State("shipped", "Shipped", "It is on its way."),
        State("held", "Held", "It waits at the depot."),
        State("lost", "Lost", "Nobody knows.", final=True),
        State("recalled", "Recalled", "It is not sent.", final=True),
    ),
    transitions=(
        Transition("open", "Open", to="draft", roles=frozenset({"clerk"})),
        Transition(
            "ship",
            "Ship",
            source=frozenset({"draft"}),
            pending="shipping",
            to=("shipped", "held"),
            roles=frozenset({"clerk", "head"}),
            steps=(BOOK, PRINT),
        ),
        Transition("hold", "Hold", source=frozenset({"shipped"}), to="held", roles=frozenset({"clerk"})),
        Transition("lose", "Lose", source=frozenset({"shipped"}), to="lost", roles=frozenset({"clerk"})),
        Transition(
            "recall",
            "Recall",
            source=frozenset({"draft", "shipped", "held"}),
            pending="recalling",
            to="recalled",
            roles=frozenset({"head"}),
            input=Grounds,
            undoes=(BOOK, PRINT),
        ),
    ),
    force_cancel=ForceCancel(pending="recalling", to="recalled"),
)
CATALOGUE = Catalogue([PARCEL])
'''

RESEND = """Transition(
            "resend",
            "Send again",
            source=frozenset({"shipped"}),
            pending="shipping",
            to="shipped",
            roles=frozenset({"head"}),
            steps=(PRINT,),
        ),
        Transition("open\""""
SENDING = 'State("sending", "Sending", "We send it."),\n        State("shipping"'
TELL = """TELL = Step("tell", "Tell them", partner="mail", result=Receipt, undo=NONE_NEEDED, exhausted="proceed")

PARCEL ="""
WORDS = ("import Catalogue", "import NONE_NEEDED, Catalogue")

# By kind: the words in which it is refused, and what the new version says in place of what.
REFUSED = {
    "a process is gone": ("parcel: the process is gone", ('"parcel",', '"packet",')),
    "a state is gone": ("state shipped: gone or renamed", ('"shipped"', '"sent"')),
    "a state becomes final": (
        "state held: is final",
        ('"It waits at the depot."', '"It waits at the depot.", final=True'),
        ('"shipped", "held"}', '"shipped"}'),
    ),
    "a state becomes open again": (
        "state lost: is not final any more",
        ('"Nobody knows.", final=True', '"Nobody knows."'),
        ('"shipped", "held"}', '"shipped", "held", "lost"}'),
    ),
    "a transition is gone": ("transition recall: gone or renamed", ('"recall",', '"withdraw",')),
    "a step is gone": (
        "transition ship: step print is gone or renamed",
        ("steps=(BOOK, PRINT)", "steps=(BOOK,)"),
        ("undoes=(BOOK, PRINT)", "undoes=(BOOK,)"),
    ),
    "a step is renamed": ("transition ship: step print is gone or renamed", ('Step("print"', 'Step("label"')),
    "another pending state": (
        "transition ship: its pending state was shipping, now sending",
        ('pending="shipping"', 'pending="sending"'),
        ('State("shipping"', SENDING),
        ('Transition("open"', RESEND),
    ),
    "a target is gone": ("transition ship: no longer leads to held", ('to=("shipped", "held")', 'to="shipped"')),
    "it no longer undoes": ("transition recall: no longer undoes print", ("undoes=(BOOK, PRINT)", "undoes=(BOOK,)")),
    "a result of another type": ("step book: result narrowed: number", ("number: str", "number: int")),
    "a result demands more": ("result narrowed: weight is required", ("number: str", "number: str\n    weight: int")),
    "another partner": (
        "step print: its partner was carrier, now post",
        ('"Print the label", partner="carrier"', '"Print the label", partner="post"'),
    ),
    "no compensation any more": (
        "step print: has no compensation any more",
        ('undo="Tear the label"', "undo=NONE_NEEDED"),
        ("undoes=(BOOK, PRINT)", "undoes=(BOOK,)"),
        WORDS,
    ),
    "the subject takes less": ("subject narrowed: to", ("max_length=200", "max_length=20")),
    "the input takes less": ("transition recall: input narrowed: grounds", ("max_length=500", "max_length=50")),
    "a role is gone": ("role head: gone or renamed", ('"head"', '"lead"')),
    "a team is gone": ("team dispatch: gone or renamed", ('"dispatch"', '"couriers"')),
    "force_cancel ends elsewhere": (
        "force_cancel: to was recalled, now lost",
        ('pending="recalling", to="recalled"', 'pending="recalling", to="lost"'),
    ),
}
FOLLOWED = (
    ('"Draft", "Nothing is sent yet."', '"Not sent", "It still lies here."'),
    ("steps=(BOOK, PRINT)", "steps=(BOOK, PRINT, TELL)"),
    ("PARCEL =", TELL),
    ('State("shipping"', SENDING),
    ('Transition("open"', RESEND.replace('"shipping"', '"sending"')),
    ("max_length=200", "max_length=2000"),
    ("number: str", "number: str\n    weight: int | None = None"),
    WORDS,
)


class Repository:
    """A git repository, its declarations, and the command run in it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.declared = folder / "processes" / "__init__.py"
        for package in ("caseward", "cli"):
            shutil.copytree(ROOT / package, folder / package, ignore=shutil.ignore_patterns("__pycache__"))
        shutil.copy(ROOT / "settings.py", folder)
        self.declared.parent.mkdir()
        self.declared.write_text(PROCESS)
        self.git("init", "-q")
        self.git("add", "--all")
        self.git("commit", "-q", "-m", "Send parcels")

    def git(self, *arguments: str) -> str:
        command = ["git", "-c", "user.name=Ada", "-c", "user.email=ada@example.com", *arguments]
        return subprocess.run(command, cwd=self.folder, check=True, capture_output=True, text=True).stdout.strip()

    def change(self, *replacements: tuple[str, str]) -> None:
        text = PROCESS
        for old, new in replacements:
            assert old in text, old
            text = text.replace(old, new)
        self.declared.write_text(text)

    def check(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "cli.main", "check", *arguments],
            cwd=self.folder,
            env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1"},
            check=False,
            capture_output=True,
            text=True,
        )


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Repository:
    return Repository(tmp_path_factory.mktemp("revisions") / "repository")


@pytest.mark.parametrize("kind", REFUSED)
def test_is_refused_because(repository: Repository, kind: str):
    words, *replacements = REFUSED[kind]
    repository.change(*replacements)
    found = repository.check("--against", "HEAD")
    assert found.returncode == 1, found.stderr
    assert words in found.stdout


def test_other_words_and_additions_can_be_followed(repository: Repository):
    repository.change(*FOLLOWED)
    found = repository.check("--against", "HEAD")
    assert (found.returncode, found.stderr) == (0, ""), found.stdout


def test_older_revisions_count_too(repository: Repository):
    """What was committed since, and refused then, is refused still: it depends on what runs, not on what came last."""
    began = repository.git("rev-parse", "HEAD")
    repository.change(*REFUSED["a step is gone"][1:])
    repository.git("commit", "-q", "-a", "-m", "Print no labels")
    assert repository.check("--against", "HEAD").returncode == 0
    assert "step print is gone" in repository.check("--against", began).stdout
    repository.git("reset", "-q", "--hard", began)
