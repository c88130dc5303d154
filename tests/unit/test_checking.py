"""What a walk through a declaration finds, and what open cases could not follow."""

import copy
import json
import subprocess
from pathlib import Path

import pytest
from pydantic import Field, create_model
from typer.testing import CliRunner

from caseward.checking.compat import breaks
from caseward.checking.describe import describe
from caseward.checking.explore import Exploration
from caseward.checking.schemas import narrowings
from cli.main import cli
from processes import CATALOGUE

ROOT = Path(__file__).parents[2]
VENDOR = CATALOGUE["vendor_onboarding"]


def told():
    return json.loads(json.dumps(describe({"vendor_onboarding": VENDOR})))


def changed(path, value):
    new = told()
    *way, last = ("processes", "vendor_onboarding", *path)
    place = new
    for name in way:
        place = place[name]
    if value is None:
        del place[last]
    else:
        place[last] = value
    return new


@pytest.mark.parametrize(
    ("path", "value", "words"),
    [
        (("states", "in_review"), None, "state in_review: gone"),
        (("states", "active", "final"), True, "state active: is final"),
        (("transitions", "approve"), None, "transition approve: gone"),
        (("transitions", "approve", "pending"), "screening", "its pending state was activating"),
        (("transitions", "submit", "targets"), ["in_review"], "no longer leads to changes_requested"),
        (("transitions", "approve", "steps"), ["create_in_erp", "open_payee"], "step send_welcome is gone"),
        (("transitions", "open", "source"), ["active"], "no longer opens"),
        (("steps", "open_payee", "partner"), "erp", "its partner was bank"),
        (("steps", "open_payee", "undo"), {"enum": "impossible"}, "has no compensation any more"),
        (("steps", "open_payee", "result", "properties", "payee_id", "type"), "integer", "result narrowed: payee_id"),
        (("subject", "required"), ["legal_name", "documents"], "subject narrowed: documents is required now"),
        (("transitions", "reject", "input", "properties", "grounds", "maxLength"), 10, "input narrowed: grounds"),
        (("force_cancel", "to"), "rejected", "force_cancel: to was cancelled"),
        (("roles", "vendor_lead"), None, "role vendor_lead: gone"),
        (("teams",), ["vendor_desk", "compliance", "treasury"], "team erp_support: gone"),
        (("pending_states",), ["activating"], "state screening: is no pending state"),
    ],
)
def test_what_open_cases_cannot_follow_is_refused(path, value, words):
    found = breaks(told(), changed(path, value))
    assert any(words in each for each in found), found


def test_a_story_that_no_longer_takes_back_what_it_did_is_refused():
    old = json.loads(json.dumps(describe({"booking": CATALOGUE["booking"]})))
    new = copy.deepcopy(old)
    new["processes"]["booking"]["transitions"]["cancel"]["undoes"].remove("hold_room")
    assert breaks(old, new) == [
        "booking: transition cancel: no longer undoes hold_room; an unfinished story may still have to"
    ]
    del old["processes"]["booking"]["transitions"]["cancel"]["undoes"]  # kept before there was such a word
    assert breaks(old, new) == []


def test_a_process_that_is_gone_is_refused_and_additions_are_not():
    assert breaks(told(), {"processes": {}}) != []
    grown = told()
    process = grown["processes"]["vendor_onboarding"]
    process["states"]["parked"] = copy.deepcopy(process["states"]["active"])
    process["transitions"]["approve"]["targets"].append("parked")
    assert breaks(told(), grown) == []


@pytest.mark.parametrize(
    ("old", "new", "sound"),
    [
        ((int, ...), (int | None, None), True),
        ((int | None, None), (int, 1), False),
        ((int, ...), (float, ...), True),
        ((str, ...), (str, Field(min_length=2)), False),
        ((str, Field(pattern="a")), (str, ...), True),
        ((list[int], ...), (list[str], ...), False),
    ],
)
def test_a_type_may_grow_but_not_shrink(old, new, sound):
    schemas = [create_model("M", field=each).model_json_schema() for each in (old, new)]
    assert (narrowings(*schemas) == []) is sound


@pytest.fixture
def unexplored(monkeypatch):
    """Only the comparison: the walk takes seconds, and has tests of its own."""
    monkeypatch.setattr("caseward.checking.explore.explore", lambda process: Exploration(process.name))


def test_a_saved_declaration_is_compared(tmp_path, unexplored):
    kept = tmp_path / "declared.json"
    assert CliRunner().invoke(cli, ["check", "--save", str(kept)]).exit_code == 0
    assert CliRunner().invoke(cli, ["check", "--against", str(kept)]).exit_code == 0
    told = json.loads(kept.read_text())
    told["processes"]["vendor_onboarding"]["states"]["lost"] = {"name": "lost", "final": False}
    kept.write_text(json.dumps(told))
    done = CliRunner().invoke(cli, ["check", "--json", "--against", str(kept)])
    assert done.exit_code == 1
    assert "state lost: gone" in json.loads(done.output)["faults"][0]


def test_a_revision_is_loaded_with_its_own_code(unexplored):
    head = subprocess.run(["git", "rev-parse", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=True)
    done = CliRunner().invoke(cli, ["check", "--against", head.stdout.strip()])
    assert done.exit_code == 0, done.output
    assert CliRunner().invoke(cli, ["check", "--against", "no-such-revision"]).exit_code == 2
