"""A worker that can't begin says why, by the name of the setting, and before it touches any server."""

import os
import socket
import subprocess
import sys

import pytest

from dev.service import ROOT


@pytest.mark.parametrize("setting", ["METRICS_PORT", "TEMPORAL_METRICS_PORT"])
def test_a_taken_port_is_told_by_the_name_of_its_setting(setting, tmp_path):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        nowhere = {
            "CASEWARD_DATABASE_URL": "postgresql://nobody@127.0.0.1:1/nothing",
            "CASEWARD_TEMPORAL_ADDRESS": "127.0.0.1:1",
            "CASEWARD_DATA_DIR": str(tmp_path),
            "CASEWARD_METRICS_PORT": "0",
        }
        started = subprocess.run(
            [sys.executable, "-m", "worker"],
            cwd=ROOT,
            env={**os.environ, **nowhere, f"CASEWARD_{setting}": str(port)},
            capture_output=True,
            text=True,
            timeout=300,  # a cold import on a busy machine
            check=False,
        )
    assert (started.returncode, started.stderr.strip().splitlines()[-1]) == (
        1,
        f"CASEWARD_{setting}: port {port} is taken",
    )
