"""A playbook for every process in the catalogue, found by its name."""

import importlib

from processes import CATALOGUE
from tests.playbook import Playbook


def read_playbooks() -> dict[str, Playbook]:
    """That of every process in the catalogue, by name; one without is an error that says which file is missing."""
    found: dict[str, Playbook] = {}
    for name, process in CATALOGUE.items():
        playbook: Playbook = importlib.import_module(f"tests.processes.{name}").PLAYBOOK
        assert playbook.process is process, f"tests/processes/{name}.py is about {playbook.name}"
        found[name] = playbook
    return found


PLAYBOOKS = read_playbooks()
