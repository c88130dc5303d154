"""This tree as a newer version has it: one step more at the head of every story, sides told in the other order, other
titles, one more state and a transition into it. Made mechanically, so that every process of the catalogue has it.
"""

import ast
import shutil
from pathlib import Path

from dev.service import ROOT
from processes import CATALOGUE

CODE = ("caseward", "processes", "workflows", "activities", "partners", "mails", "api", "cli", "dev")
FILES = ("worker.py", "settings.py", "requirements.lock")
STEP, TRANSITION, MARK = "noted_anew", "set_aside", " (newer)"

DECLARED = f'''

from dataclasses import replace as _replace

from caseward import process as _words


class NotedAnew(_words.Strict):
    """What the registry says."""

    registered: bool


NOTED_ANEW = _words.Step(
    "{STEP}", "Note it anew", partner="registry", result=NotedAnew, undo=_words.NONE_NEEDED, exhausted="proceed"
)


def _newer(process):
    aside = _words.State("{TRANSITION}", "Set aside{MARK}", "Nobody works on it any more.", final=True)
    opening = process.opening
    return _replace(
        process,
        title=process.title + "{MARK}",
        states=(*(_replace(each, title=each.title + "{MARK}") for each in process.states), aside),
        transitions=(
            *(_replace(each, steps=(NOTED_ANEW, *each.steps) if each.steps else ()) for each in process.transitions),
            _words.Transition(
                *("{TRANSITION}", "Set aside"),
                source=frozenset(opening.targets[:1]),
                to="{TRANSITION}",
                roles=opening.roles,
            ),
        ),
    )


globals().update({{name: _newer(it) for name, it in list(globals().items()) if isinstance(it, _words.Process)}})
'''

DONE = """

from caseward.activity import Call as _Call
from caseward.activity import effect as _effect
from processes.{process} import NOTED_ANEW, NotedAnew


def _noting(steps):
    before = steps.__init__

    def begin(self, *given, **named):
        before(self, *given, **named)
        self._notes = given[0].registry

    @_effect(NOTED_ANEW)
    async def noted_anew(self, call: _Call) -> NotedAnew:
        found = await call.send(
            self._notes.check_tax_id, country="DE", tax_id="DE129273398", legal_name=call.business_key
        )
        return NotedAnew(registered=found.registered)

    steps.__init__, steps.noted_anew = begin, noted_anew


_noting({steps})
"""


class Story(ast.NodeTransformer):
    """Puts the step at the head of each story with steps, and tells what is side by side in the other order."""

    def __init__(self, stories: set[str]) -> None:
        self.stories = stories
        self.changed: set[str] = set()

    def visit_AsyncFunctionDef(self, node: ast.AsyncFunctionDef) -> ast.AST:
        self.generic_visit(node)
        if node.name in self.stories:
            node.body.insert(1, ast.parse("await self.step(NOTED_ANEW)").body[0])  # below its docstring
            self.changed.add(node.name)
        return node

    def visit_Assign(self, node: ast.Assign) -> ast.AST:
        if _together(node.value) and isinstance(node.targets[0], ast.Tuple):
            node.targets[0].elts.reverse()
            node.value.value.args.reverse()
        return node

    def visit_Expr(self, node: ast.Expr) -> ast.AST:
        if _together(node.value):
            node.value.value.args.reverse()
        return node


def _together(value: ast.expr) -> bool:
    call = value.value if isinstance(value, ast.Await) else None
    return isinstance(call, ast.Call) and isinstance(call.func, ast.Attribute) and call.func.attr == "together"


def tree(folder: Path) -> Path:
    """A copy of this tree, as it is."""
    for name in CODE:
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in FILES:
        shutil.copy(ROOT / name, folder / name)
    return folder


def newer_tree(folder: Path) -> Path:
    """A copy of this tree, as the newer version has it."""
    tree(folder)
    for name, process in CATALOGUE.items():
        declaration, stories, steps = (
            folder / package / f"{name}.py" for package in ("processes", "workflows", "activities")
        )
        declaration.write_text(declaration.read_text() + DECLARED)

        story = Story({each.name for each in process.transitions if each.steps})
        told = ast.unparse(story.visit(ast.parse(stories.read_text())))
        assert story.changed == story.stories, f"{name}: {story.stories - story.changed} are told somewhere else"
        stories.write_text(f"from processes.{name} import NOTED_ANEW\n{told}\n")

        classes = [each for each in ast.parse(steps.read_text()).body if isinstance(each, ast.ClassDef)]
        its_steps = [each.name for each in classes if any(isinstance(it, ast.AsyncFunctionDef) for it in each.body)]
        steps.write_text(steps.read_text() + DONE.format(process=name, steps=its_steps[-1]))
    return folder


def python_of(folder: Path) -> dict[str, str]:
    """What makes a child process run the code in `folder`, wherever it is started."""
    return {"PYTHONSAFEPATH": "1", "PYTHONPATH": str(folder)}
