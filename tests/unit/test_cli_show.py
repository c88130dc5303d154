"""What the CLI shows: content from outside is text, ids stay whole, the next command means what it says, bars move."""

import io

import pytest
from rich.console import Console

from cli import bulk
from cli.acting import merged
from cli.exits import AWAY, BLOCKED, DONE, MISUSED, NOT_FOUND, NOT_SIGNED_IN, REFUSED, UNFINISHED, exit_code
from cli.show import cell, lines, plain, table, whole
from cli.work import next_command, reference

HOSTILE = "[bold red]x[/] \x1b[31m\x07\r\n\x9b2J \u202egnp.exe :smile: [link=http://evil]"
CASE_ID = "0199aaaa-bbbb-7ccc-8ddd-eeeeffff0000"


def screen(width: int = 80, *, terminal: bool = True) -> Console:
    return Console(
        file=io.StringIO(), width=width, force_terminal=terminal, color_system=None, markup=False, emoji=False
    )


def drawn(on: Console) -> str:
    return on.file.getvalue()


class TestContentFromOutside:
    def test_can_neither_be_markup_nor_speak_to_the_terminal(self):
        shown = plain(HOSTILE)
        assert shown == (r"[bold red]x[/] \x1b[31m\x07\r\n\x9b2J \u202egnp.exe :smile: [link=http://evil]")

    def test_stays_as_it_is_where_it_is_ordinary(self):
        assert plain("Zoë Łuczak, 東京") == "Zoë Łuczak, 東京"

    @pytest.mark.parametrize("show", [lines, whole, lambda it, to: table(["What"], [[it]], to=to)])
    def test_is_shown_as_text_everywhere(self, show):
        on = screen(width=200)
        show(HOSTILE, to=on)
        assert plain(HOSTILE) in drawn(on)
        assert not set(drawn(on)) & set("\x1b\x07\r\x9b\u202e")

    def test_never_gets_a_style_of_its_own(self):
        assert cell(HOSTILE).spans == []


class TestAt80Columns:
    def test_ids_stay_whole_and_the_rest_gives_way(self):
        on = screen()
        why = "because of this and that " * 5
        table(("Case", "Why", "And"), [(CASE_ID, why, why)], ids=("Case",), to=on)
        told = drawn(on)
        assert CASE_ID in told
        assert max(len(line) for line in told.splitlines()) <= 80
        assert told.split().count("because") == 10, "nothing is cut off"

    def test_a_command_is_never_broken(self):
        on = screen()
        whole("caseward " + "x" * 100, to=on)
        assert drawn(on) == "caseward " + "x" * 100 + "\n"

    def test_a_pipe_gets_no_padding(self):
        on = screen(terminal=False)
        table(("Case", "Why"), [("A", ""), ("LONGER", "x")], to=on)
        assert drawn(on).splitlines() == ["Case    Why", "A", "LONGER  x"]


def action(kind="override", name="retry", step="open_payee", *, allowed=True, item=None):
    return {"kind": kind, "name": name, "step": step, "item": item, "allowed": allowed}


def blocked(*actions, key="BK-17", cause="rejected", condition="blocked"):
    info = {"step": "open_payee", "item": None, "cause": cause}
    return {
        "case_id": CASE_ID,
        "business_key": key,
        "condition": condition,
        "condition_info": info,
        "proposals": [],
        "actions": list(actions),
    }


class TestTheNextCommand:
    def test_of_a_blocked_case_is_the_retry_of_its_step(self):
        case = blocked(action(step="other"), action(), action(name="undo", step=None))
        assert next_command(case) == 'caseward override retry BK-17 --step open_payee --reason "..."'

    def test_is_one_that_this_actor_may_give(self):
        assert next_command(blocked(action(allowed=False))) == "caseward case show BK-17"

    def test_of_an_unknown_outcome_says_to_look_first(self):
        assert next_command(blocked(action(), cause="unknown")).endswith(
            '--not-happened --reason "..."  # once you looked'
        )

    def test_of_a_waiting_case_is_a_transition(self):
        case = blocked(action("transition", "request_changes", None), condition="waiting")
        assert next_command(case) == "caseward take BK-17 request-changes"

    @pytest.mark.parametrize("key", ["$(rm -rf ~)", "a b", "-rf", "; ls", "0199aaaa-bbbb-7ccc-8ddd-eeeeffff0001", "é"])
    def test_names_the_case_by_its_id_where_the_key_could_mean_something_else(self, key):
        assert reference(blocked(key=key)) == CASE_ID


class TestInput:
    SCHEMA = {  # noqa: RUF012 - read only
        "$defs": {"Inner": {"properties": {"iban": {"type": "string"}}}},
        "properties": {
            "count": {"type": "integer"},
            "phone": {"type": "string"},
            "note": {"anyOf": [{"type": "string"}, {"type": "null"}]},
            "inner": {"$ref": "#/$defs/Inner"},
        },
    }

    def test_is_what_the_schema_says(self):
        given = ["count=3", "phone=0049", "note=true", "inner.iban=12", "new=[1]"]
        assert merged({}, given, self.SCHEMA) == {
            "count": 3,
            "phone": "0049",
            "note": "true",
            "inner": {"iban": "12"},
            "new": [1],
        }

    def test_stands_on_top_of_what_a_file_says(self):
        assert merged({"inner": {"bic": "X"}}, ["inner.iban=a=b"], self.SCHEMA) == {
            "inner": {"bic": "X", "iban": "a=b"}
        }


@pytest.mark.parametrize(
    ("status", "code"),
    [
        (400, MISUSED),
        (401, NOT_SIGNED_IN),
        (403, REFUSED),
        (404, NOT_FOUND),
        (409, REFUSED),
        (412, REFUSED),
        (422, MISUSED),
        (500, AWAY),
        (503, AWAY),
    ],
)
def test_every_refusal_has_its_exit_code(status, code):
    assert exit_code(status) == code


class Telling:
    """An API that tells of a bulk run, one document after the other."""

    def __init__(self, *runs):
        self.runs = list(runs)

    async def get(self, href):
        return self.runs.pop(0) if len(self.runs) > 1 else self.runs[0]


def run(state, **counts):
    return {
        "bulk_id": CASE_ID,
        "state": state,
        "sentence": "[red]As it says.",
        "override": "retry",
        "chosen": None,
        "total": sum(counts.values()),
        "counts": counts,
        "stopped_because": None,
    }


class TestFollowingABulkRun:
    @pytest.fixture(autouse=True)
    def on(self, monkeypatch):
        on = screen()
        monkeypatch.setattr(bulk, "console", lambda **_: on)
        return on

    async def test_moves_a_bar_until_every_case_has_its_outcome(self, on, capsys):
        api = Telling(run("ramping", repaired=1, sent=2), run("completed", repaired=3))
        assert await bulk._follow(api, run("canary", frozen=3), None, as_json=False) == DONE
        assert "0/3" in drawn(on)
        assert "3/3" in drawn(on)
        assert "[red]As it says." in capsys.readouterr().out

    @pytest.mark.parametrize(
        ("now", "code"),
        [
            (run("completed", repaired=2, blocked_again=1), BLOCKED),
            (run("stopped", repaired=2, left=1), BLOCKED),
            (run("completed", repaired=2, proposed=1), UNFINISHED),
            (run("looking", repaired=2, frozen=1), UNFINISHED),
            (run("ramping", repaired=2, sent=1), UNFINISHED),
            (run("completed", repaired=2, moved=1), DONE),
        ],
    )
    async def test_ends_as_the_run_does(self, now, code):
        assert await bulk._follow(Telling(now), now, 0.1, as_json=False) == code
