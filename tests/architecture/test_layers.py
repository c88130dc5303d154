"""What import-linter can't say: a list of what MAY be imported, and what stands in files that must stay empty."""

import ast
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
# All other files directly in caseward/ are its pure part, and so are its documents.
IMPURE = {"reconciler.py", "activity.py", "hearing.py", "chores.py", "objects.py", "metrics.py"}
PURE = sorted(path for path in (ROOT / "caseward").glob("*.py") if path.name not in IMPURE)
PURE += sorted((ROOT / "caseward" / "documents").glob("*.py"))


def imports(path: Path) -> set[str]:
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return names


@pytest.mark.parametrize("path", PURE, ids=lambda path: str(path.relative_to(ROOT / "caseward")))
def test_the_pure_part_imports_the_standard_library_and_pydantic_only(path):
    foreign = {name for name in imports(path) if name.partition(".")[0] not in {*sys.stdlib_module_names, "caseward"}}
    assert {name.partition(".")[0] for name in foreign} <= {"pydantic", "pydantic_core"}


@pytest.mark.parametrize("path", PURE, ids=lambda path: str(path.relative_to(ROOT / "caseward")))
def test_the_pure_part_imports_nothing_of_the_engine_below_it(path):
    below = {"db", "outbox", "cases", "reconciler", "activity", "workflow"}
    assert not {name for name in imports(path) if name.startswith("caseward.") and name.split(".")[1] in below}


@pytest.mark.skipif(not (ROOT / "workflows" / "__init__.py").exists(), reason="no workflows yet")
def test_the_package_of_the_workflows_is_empty():
    # Temporal's sandbox imports it anew for every workflow instance.
    module = ast.parse((ROOT / "workflows" / "__init__.py").read_text())
    assert [node for node in module.body if not isinstance(node, ast.Expr)] == []
