"""Today's workflow code follows the histories that were recorded of every story, and those hold no personal data."""

import base64
import json
from pathlib import Path

import pytest
from temporalio.client import WorkflowHistory
from temporalio.worker import Replayer

from caseward.workflow.sandbox import runner
from processes import CATALOGUE
from tests.playbook import EXAMPLE_OF
from worker import find_workflows

HISTORIES = sorted((Path(__file__).parent / "histories").glob("*/*.json"))
DEADLOCK = "TMPRL1101"  # the code had no turn for two seconds of real time, which a busy machine may do once
NAMES = 6  # letters: a shorter value, such as a country, may stand anywhere


def personal(value: object) -> list[str]:
    """Every text of a subject that is long enough to be known again."""
    if isinstance(value, str):
        return [value] if len(value) >= NAMES else []
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return [text for each in inner for text in personal(each)]


@pytest.mark.parametrize("path", HISTORIES, ids=lambda path: f"{path.parent.name}-{path.stem}")
class TestHistories:
    async def test_is_followed_by_todays_code(self, path: Path):
        replayer = Replayer(workflows=find_workflows(CATALOGUE), workflow_runner=runner())
        try:
            await replayer.replay_workflow(recorded(path))
        except RuntimeError as fault:
            if DEADLOCK not in str(fault):
                raise
            await replayer.replay_workflow(recorded(path))

    def test_holds_no_personal_data(self, path: Path):
        text = decoded(json.loads(path.read_text()))
        data = personal(EXAMPLE_OF(CATALOGUE[path.parent.name]))
        assert data, "the example of the subject names nothing"
        assert not [each for each in data if each in text]


def test_every_story_was_recorded():
    stories = {
        f"{process.name}.{step.name}"
        for process in CATALOGUE.values()
        for transition in process.transitions
        for step in transition.steps
    }
    recorded = "".join(path.read_text() for path in HISTORIES)
    assert {name for name in stories if f'"{name}"' not in recorded} == set()


def recorded(path: Path) -> WorkflowHistory:
    return WorkflowHistory.from_json(f"{path.parent.name}:{path.stem}", path.read_text())


def decoded(value: object) -> str:
    """Everything in a history as text, payloads included."""
    if isinstance(value, dict):
        if isinstance(value.get("data"), str):
            return base64.b64decode(value["data"]).decode(errors="replace")
        return " ".join(decoded(inner) for inner in value.values())
    if isinstance(value, list):
        return " ".join(decoded(inner) for inner in value)
    return str(value)
