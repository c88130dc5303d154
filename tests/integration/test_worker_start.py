"""A worker that can't begin says why, by the name of the setting, and before it touches any server."""

import os
import socket
import subprocess
import sys

import pytest
from structlog.testing import capture_logs

import worker
from dev.service import ROOT
from settings import Settings


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


def test_a_taken_port_that_nobody_chose_is_gone_without(monkeypatch):
    """As of the second worker on a machine, such as the next version's beside this one's."""

    def taken(*_: object) -> None:
        raise OSError

    monkeypatch.setattr(worker, "start_http_server", taken)
    monkeypatch.delenv("CASEWARD_METRICS_PORT", raising=False)
    with capture_logs() as logs:
        worker.serve_metrics(Settings(_env_file=None))
    assert [(line["event"], line["port"]) for line in logs] == [("metrics_unserved", 8001)]
    with pytest.raises(worker.PortTaken, match="CASEWARD_METRICS_PORT: port 8001 is taken"):
        worker.serve_metrics(Settings(_env_file=None, metrics_port=8001))
