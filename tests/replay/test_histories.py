"""Today's workflow code follows the histories that were recorded of every story, and those hold no personal data."""

import base64
import json
from pathlib import Path

import pytest
from temporalio.client import WorkflowHistory
from temporalio.worker import Replayer

from caseward.workflow.sandbox import runner
from processes import CATALOGUE
from tests.faults.company import EXAMPLE
from worker import find_workflows

HISTORIES = sorted((Path(__file__).parent / "histories").glob("*.json"))
PERSONAL = [
    EXAMPLE["legal_name"],
    EXAMPLE["tax_id"],
    EXAMPLE["bank_account"]["iban"],
    EXAMPLE["contacts"][0]["name"],
    EXAMPLE["contacts"][0]["email"],
]


@pytest.mark.parametrize("path", HISTORIES, ids=lambda path: path.stem)
class TestHistories:
    async def test_is_followed_by_todays_code(self, path: Path):
        replayer = Replayer(workflows=find_workflows(CATALOGUE), workflow_runner=runner())
        await replayer.replay_workflow(recorded(path))

    def test_holds_no_personal_data(self, path: Path):
        text = decoded(json.loads(path.read_text()))
        assert not [data for data in PERSONAL if data in text]


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
    return WorkflowHistory.from_json(f"vendor_onboarding:{path.stem}", path.read_text())


def decoded(value: object) -> str:
    """Everything in a history as text, payloads included."""
    if isinstance(value, dict):
        if isinstance(value.get("data"), str):
            return base64.b64decode(value["data"]).decode(errors="replace")
        return " ".join(decoded(inner) for inner in value.values())
    if isinstance(value, list):
        return " ".join(decoded(inner) for inner in value)
    return str(value)
