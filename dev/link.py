"""Links this folder into the venv that runs it, as an editable install would, but without a build backend: nothing
would lock that one's version or hash.

It runs before anything else is sure to be installed, so it takes the standard library only.
"""

import sys
import sysconfig
from pathlib import Path

ROOT = Path(__file__).parent.parent
COMMAND = """\
#!{python}
from cli.main import run

run()
"""


def link() -> None:
    (Path(sysconfig.get_path("purelib")) / "caseward.pth").write_text(f"{ROOT}\n")
    command = Path(sysconfig.get_path("scripts")) / "caseward"
    command.write_text(COMMAND.format(python=sys.executable))
    command.chmod(0o755)


if __name__ == "__main__":
    link()
