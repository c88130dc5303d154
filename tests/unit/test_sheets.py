"""`caseward review`: sheets that say what is declared, whatever it is, and are kept up to date."""

import re
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest
from typer.testing import CliRunner

from caseward.checking.sheet import marked, sheet
from caseward.diagram import diagram
from caseward.process import Process
from cli.main import cli
from cli.review import FOLDER, files
from processes import CATALOGUE

ROOT = Path(__file__).parents[2]
EVIL = "<script>alert(1)</script> | *a* & `b`"
each_process = pytest.mark.parametrize("process", CATALOGUE.values(), ids=lambda process: process.name)


@each_process
def test_what_is_kept_is_up_to_date(process):
    kept = {name: (ROOT / FOLDER / name).exists() and (ROOT / FOLDER / name).read_text() for name, _ in files(process)}
    stale = [name for name, text in files(process) if kept[name] != text]
    assert stale == [], "run `caseward review --all`"


@each_process
def test_every_state_and_transition_is_in_the_picture(process):
    picture = ET.fromstring(diagram(process))
    drawn = {each.get("data-state") for each in picture.iter() if each.get("data-state")}
    texts = {each.text for each in picture.iter() if each.tag.endswith("text")}
    assert drawn == {state.name for state in process.states}
    assert {transition.title for transition in process.transitions} <= texts


@each_process
def test_the_page_needs_nothing_from_elsewhere(process):
    page = sheet(process, "html").replace('xmlns="http://www.w3.org/2000/svg"', "")
    assert not re.search(r"https?:|src=|<link|<script|@import|url\(", page)


def evil() -> Process:
    process = CATALOGUE["booking"]
    states = tuple(replace(state, title=EVIL, meaning=EVIL) for state in process.states)
    transitions = tuple(replace(each, title=EVIL) for each in process.transitions)
    return replace(process, title=EVIL, states=states, transitions=transitions)


def test_titles_are_no_markup():
    page = sheet(evil(), "html")
    assert "<script" not in page
    assert "&lt;script&gt;" in page
    assert "<script" not in diagram(evil())
    text = sheet(evil(), "markdown")
    assert "<script" not in text.replace("\\<script", "")
    assert not re.search(r"[^\\]\| \*a", text)


def test_a_line_of_markdown_says_just_what_it_says():
    assert marked("1. a_b\n- c") == "1\\. a\\_b - c"
    assert marked("- x") == "\\- x"


def test_a_case_is_marked_where_it_stands():
    picture = diagram(CATALOGUE["booking"], current="confirmed", visited={"draft"})
    assert 'class="state current" data-state="confirmed"' in picture
    assert 'class="state visited" data-state="draft"' in picture


class TestCommand:
    def test_prints_or_writes_a_sheet(self, tmp_path):
        printed = CliRunner().invoke(cli, ["review", "payment-review"])
        assert (printed.exit_code, printed.output) == (0, sheet(CATALOGUE["payment_review"], "markdown"))
        written = CliRunner().invoke(cli, ["review", "booking", "--format", "html", "--output", str(tmp_path / "x")])
        assert (written.exit_code, (tmp_path / "x").read_text()) == (0, sheet(CATALOGUE["booking"], "html"))

    def test_markdown_comes_with_its_picture(self, tmp_path):
        assert CliRunner().invoke(cli, ["review", "booking", "--output", str(tmp_path / "b.md")]).exit_code == 0
        assert sorted(path.name for path in tmp_path.iterdir()) == ["b.md", "booking.svg"]

    @pytest.mark.parametrize(
        "arguments",
        [[], ["loan"], ["booking", "--all"], ["booking", "--format", "pdf"], ["booking", "--output", "/dev/null/x"]],
    )
    def test_called_wrongly_is_exit_code_2(self, arguments):
        assert CliRunner().invoke(cli, ["review", *arguments]).exit_code == 2
