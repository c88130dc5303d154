"""Documents against the code: what they name exists, what they leave out is found, what they show runs."""

import importlib
import re
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml

from caseward import failpoints, metrics
from caseward.activity import EffectRunner, step_activities
from caseward.faults import faults
from caseward.process import Catalogue
from caseward.workflow.stories import story_faults
from partners.mail import Mail, SmtpServer
from settings import Settings

ROOT = Path(__file__).parents[2]
README = ROOT / "README.md"
PAGES = (README, ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").rglob("*.md")))
FENCED = re.compile(r"^```.*?^```$", re.MULTILINE | re.DOTALL)


def first_cells(page: Path) -> list[str]:
    """The first cell of every table row, without its backticks."""
    return re.findall(r"^\| `([^`]+)` \|", page.read_text(), re.MULTILINE)


def test_every_failpoint_has_its_row():
    named = first_cells(ROOT / "docs" / "reliability.md")
    assert sorted(named) == sorted(failpoints.NAMES)


def test_every_failpoint_is_somewhere_in_the_code():
    code = "".join(path.read_text() for folder in ("caseward", "api") for path in (ROOT / folder).rglob("*.py"))
    assert set(re.findall(r'failpoint\("([^"]+)"', code)) == failpoints.NAMES


def test_every_setting_has_its_row():
    named = [name for name in first_cells(README) if name.startswith("CASEWARD_")]
    assert sorted(named) == sorted(f"CASEWARD_{name.upper()}" for name in Settings.model_fields)


def test_every_metric_has_its_row_with_its_labels():
    rows = re.findall(r"^\| `(caseward_\w+)` \|([^|]*)\|", (ROOT / "docs" / "metrics.md").read_text(), re.MULTILINE)
    told = {name: tuple(labels.strip().split(", ")) if labels.strip() else () for name, labels in rows}
    known: dict[str, tuple[str, ...]] = {gauge.name: gauge.labels for gauge in metrics.GAUGES}
    for metric in metrics.COUNTED:
        described = metric.describe()[0]
        known[described.name + ("_total" if described.type == "counter" else "")] = metric._labelnames
    assert told == known
    counted = {
        name for name in vars(metrics) if isinstance(getattr(metrics, name), (metrics.Counter, metrics.Histogram))
    }
    assert len(counted) == len(metrics.COUNTED)
    assert len({name for name in vars(metrics) if isinstance(getattr(metrics, name), metrics.Gauge)}) == len(
        metrics.GAUGES
    )


def test_every_alert_asks_for_metrics_that_exist_and_names_a_runbook_that_does():
    page = (ROOT / "docs" / "metrics.md").read_text()
    groups = yaml.safe_load((ROOT / "docs" / "alerts.yml").read_text())["groups"]
    for rule in [rule for group in groups for rule in group["rules"]]:
        names = re.findall(r"caseward_\w+", rule["expr"])
        assert names, rule
        assert [name for name in names if f"`{name}`" not in page] == []
        assert (ROOT / "docs" / rule["annotations"]["runbook"]).exists(), rule


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_relative_link_leads_somewhere(page):
    links = re.findall(r"\]\(([^)\s]+)\)", FENCED.sub("", page.read_text()))
    relative = [link.partition("#")[0] for link in links if "://" not in link and not link.startswith("#")]
    assert [link for link in relative if not (page.parent / link).exists()] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_test_named_somewhere_exists(page):
    missing = []
    for path, names in re.findall(r"`(tests/[\w/]+\.py)((?:::\w+)*)`", page.read_text()):
        code = (ROOT / path).read_text() if (ROOT / path).exists() else None
        absent = [name for name in names.split("::")[1:] if not re.search(rf"(class|def) {name}\b", code or "")]
        if code is None or absent:
            missing.append(path + names)
    assert missing == []


@pytest.fixture
def example(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Imports a module of the example in docs/adding-a-process.md as if its file stood where it says."""
    text = (ROOT / "docs" / "adding-a-process.md").read_text()
    blocks = re.findall(r"^```python\n# (\w+)/(\w+)\.py\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    assert [package for package, _, _ in blocks] == ["processes", "workflows", "activities", "partners"]
    before = set(sys.modules)
    for package, name, code in blocks:
        (tmp_path / package).mkdir()
        (tmp_path / package / f"{name}.py").write_text(code)
        loaded = importlib.import_module(package)
        monkeypatch.setattr(loaded, "__path__", [*loaded.__path__, str(tmp_path / package)])
    yield importlib.import_module
    for package, name, _ in blocks:
        if f"{package}.{name}" not in before:
            sys.modules.pop(f"{package}.{name}", None)


def test_the_example_process_is_sound(example):
    process = example("processes.expense_claim").EXPENSE_CLAIM
    assert faults(process) == []
    assert process.subject.model_validate(process.subject.model_config["json_schema_extra"]["examples"][0])


def test_the_example_tells_every_story(example):
    process = example("processes.expense_claim").EXPENSE_CLAIM
    stories = example("workflows.expense_claim").ExpenseClaims
    assert list(story_faults({process.name: process}, [stories])) == []


async def test_the_example_has_every_activity(example):
    process = example("processes.expense_claim").EXPENSE_CLAIM
    payroll = example("partners.payroll").Payroll("http://payroll.example")
    mail = Mail(SmtpServer(host="mail.example", port=25, mail_from="caseward@caseward.test"))
    steps = example("activities.expense_claim").ExpenseClaimSteps(SimpleNamespace(payroll=payroll, mail=mail))
    runner = EffectRunner(SimpleNamespace(), Catalogue([process]))
    made = step_activities(process, steps, runner)
    assert len(made) == len(process.steps) + sum(step.compensable for step in process.steps.values())
    await payroll.aclose()
    await mail.aclose()
