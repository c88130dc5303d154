"""Whether every declared story is told somewhere."""

import inspect
from collections.abc import Iterable, Iterator, Mapping

from caseward.process import Process
from caseward.workflow.case import CaseWorkflow


def story_faults(catalogue: Mapping[str, Process], workflows: Iterable[type[CaseWorkflow]]) -> Iterator[str]:
    """Every transition with steps has a story, and every process a workflow; each fault says where and what."""
    by_name = {stories.process.name: stories for stories in workflows}
    for name, process in catalogue.items():
        stories = by_name.get(name)
        if stories is None:
            yield f"{name}: no workflow is registered"
            continue
        for transition in process.transitions:
            if hasattr(CaseWorkflow, transition.name) or transition.name == "run":
                yield f"{name}: transition {transition.name} has a name that every workflow uses for something else"
                continue
            told = inspect.iscoroutinefunction(getattr(stories, transition.name, None))
            if transition.told and not told:
                what = "steps" if transition.steps else "something to undo"
                yield f"{name}: transition {transition.name} has {what}, but {stories.__name__} has no story of it"
            if told and not transition.told:
                yield f"{name}: {stories.__name__} tells {transition.name}, which has no steps"
    for name in sorted(set(by_name) - set(catalogue)):
        yield f"{name}: a workflow without a process"
