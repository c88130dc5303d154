"""Declarations of another time: from a git revision, in a Python of their own, or from a file."""

import io
import json
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path
from typing import Any

from caseward.checking import describe

FOLDERS = ("caseward", "processes")
TELL = b"\n\nimport json\nfrom processes import CATALOGUE\nprint(json.dumps(describe(CATALOGUE)))\n"


class NotReadable(Exception):
    """Neither a saved description nor a revision whose declarations can be loaded."""


def declarations_at(source: str, *, root: Path) -> dict[str, Any]:
    """The description saved in this file, or that of the declarations at this revision of `root`."""
    saved = Path(source)
    if saved.is_file():
        try:
            told: dict[str, Any] = json.loads(saved.read_text())
        except ValueError as malformed:
            raise NotReadable(f"{source} is not a saved description: {malformed}") from malformed
        if told.get("format") != describe.FORMAT:
            raise NotReadable(f"{source} is not a saved description of this form.")
        return told
    if source.startswith("-"):
        raise NotReadable(f"{source} is neither a file nor a revision.")
    with tempfile.TemporaryDirectory() as folder:
        archive = _run(["git", "archive", "--format=tar", source, *FOLDERS], cwd=root)
        with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
            tar.extractall(folder, filter="data")
        # The old code stands before everything else, and is asked by today's questions.
        asked = Path(describe.__file__).read_bytes() + TELL
        return json.loads(_run([sys.executable, "-"], cwd=Path(folder), given=asked))


def _run(command: list[str], *, cwd: Path, given: bytes = b"") -> bytes:
    try:
        done = subprocess.run(command, cwd=cwd, input=given, capture_output=True, check=False)  # noqa: S603 - own words
    except FileNotFoundError as absent:
        raise NotReadable(f"{command[0]} is not installed.") from absent
    if done.returncode:
        told = done.stderr.decode(errors="replace").strip().splitlines()
        raise NotReadable(f"{' '.join(command[:2])} failed: {told[-1] if told else 'no word why'}")
    return done.stdout
