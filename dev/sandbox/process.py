"""A sandbox process in our hands: tests start, kill and restart it, set faults, and read its ledger."""

import os
import re
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

import httpx2

ROOT = Path(__file__).parents[2]


class SandboxProcess:
    """One sandbox on a port of its own, which it keeps over restarts as a real partner keeps its address."""

    def __init__(self, data_dir: Path, *, environment: Mapping[str, str] | None = None) -> None:
        self.data_dir = data_dir
        self._environment = dict(environment or {})
        self._process: subprocess.Popen[str] | None = None
        self._port = self.smtp_port = 0
        self.control = httpx2.Client(trust_env=False, timeout=30)

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End it, and let go of everything."""
        self.kill()
        self.control.close()

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"http://127.0.0.1:{self._port}"

    def start(self) -> None:
        """Start it, and return when it takes connections."""
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("CASEWARD_")}
        self._process = subprocess.Popen(
            [sys.executable, "-m", "dev.sandbox"],
            cwd=ROOT,
            env={
                **inherited,
                "CASEWARD_DATA_DIR": str(self.data_dir),
                "CASEWARD_SANDBOX_PORT": str(self._port),
                "CASEWARD_SANDBOX_SMTP_PORT": str(self.smtp_port),
                **self._environment,
            },
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self._process.stdout is not None  # noqa: S101  a pipe was asked for
        line = self._process.stdout.readline()
        found = re.search(r":(\d+), .*:(\d+)$", line.strip())
        if found is None:
            message = f"the sandbox did not start: {line!r}, exit code {self.stop()}"
            raise RuntimeError(message)
        self.smtp_port, self._port = int(found[1]), int(found[2])
        self.control.base_url = self.url

    def kill(self) -> None:
        """SIGKILL: nothing gets a chance to be written."""
        if self._process is not None:
            self._process.kill()
            self._process.communicate()
            self._process = None

    def stop(self) -> int:
        """SIGTERM, and its exit code."""
        process, self._process = self._process, None
        if process is None:
            return 0
        process.terminate()  # harmless where it has ended by itself
        process.communicate()
        return process.returncode

    def fault(self, partner: str, call: str, mode: str, times: int | None = None, **more: object) -> None:
        """Put a fault in force."""
        order = {"partner": partner, "call": call, "mode": mode, "times": times, **more}
        self.control.post("/_control/faults", json=order).raise_for_status()

    def clear_faults(self) -> None:
        """All partners behave again."""
        self.control.delete("/_control/faults").raise_for_status()

    def ledger(self, *, partner: str = "", key: str = "") -> list[dict[str, Any]]:
        """Every effect that happened, oldest first."""
        answer = self.control.get("/_control/ledger", params={"partner": partner, "key": key})
        return answer.raise_for_status().json()

    def callbacks(self, *, key: str) -> list[dict[str, Any]]:
        """The news of one key, and how their delivery stands."""
        events: list[dict[str, Any]] = self.control.get("/_control/callbacks").raise_for_status().json()
        return [event for event in events if event["body"]["key"] == key]
