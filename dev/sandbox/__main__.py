"""`python -m dev.sandbox`: one process, one folder, a port for HTTP and one for SMTP."""

import fcntl
import os
import signal
import socket
import sys
from pathlib import Path
from types import FrameType
from typing import NoReturn

import uvicorn
from pydantic import Field

from dev.sandbox.app import Sandbox
from dev.sandbox.callbacks import Later, master_secret
from dev.sandbox.ledger import Ledger
from dev.sandbox.partners import PARTNERS
from dev.sandbox.server import HangUpProtocol
from settings import Settings


class SandboxSettings(Settings):
    """Caseward's settings, and the few that only the sandbox reads."""

    sandbox_host: str = Field(default="127.0.0.1", description="The address the sandbox listens at")
    sandbox_port: int = Field(default=8100, ge=0, le=65535, description="Its port; 0 = a free one, printed at start")
    sandbox_smtp_port: int = Field(default=8125, ge=0, le=65535, description="Its mail server's port; 0 = a free one")
    smtp_port: int = Field(default=0, description="Where others find a mail server; not its own concern")


def main() -> None:
    """Serve until SIGINT or SIGTERM."""
    settings = SandboxSettings()
    data_dir = settings.data_dir / "sandbox"
    data_dir.mkdir(parents=True, exist_ok=True)
    _own(data_dir)
    listener = _listen(settings.sandbox_host, settings.sandbox_port, "CASEWARD_SANDBOX_PORT")
    smtp = _listen(settings.sandbox_host, settings.sandbox_smtp_port, "CASEWARD_SANDBOX_SMTP_PORT")

    ledger = Ledger(data_dir / "ledger.sqlite3", {partner.name: partner for partner in PARTNERS})

    def application() -> object:
        # Made inside the event loop, where the callbacks' client belongs.
        later = Later(ledger, api_url=settings.api_url, master=master_secret(data_dir, settings.callback_secret))
        return Sandbox(PARTNERS, ledger=ledger, later=later, smtp=smtp).application()

    config = uvicorn.Config(
        application,
        factory=True,
        loop="uvloop",
        http=HangUpProtocol,
        log_level="warning",
        access_log=False,
        timeout_keep_alive=75,  # longer than our gateways keep a connection, or we would hang up on their requests
        timeout_graceful_shutdown=2,
    )
    # uvicorn ends gracefully and then hands the signal back to whoever had it before.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _leave)
    host, port = listener.getsockname()[:2]
    smtp_port = smtp.getsockname()[1]
    print(
        f"The partner sandbox listens for mail at {host}:{smtp_port}, for all else at http://{host}:{port}", flush=True
    )
    uvicorn.Server(config).run(sockets=[listener])


def _leave(_signal: int, _frame: FrameType | None) -> NoReturn:
    sys.exit(0)


def _own(data_dir: Path) -> None:
    """Two processes on one ledger would be two referees. The lock ends with the process, however it ends."""
    lock = os.open(data_dir / "lock", os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        sys.exit(f"Another sandbox uses {data_dir}. Stop it, or set CASEWARD_DATA_DIR.")


def _listen(host: str, port: int, setting: str) -> socket.socket:
    try:
        return socket.create_server((host, port), backlog=2048)
    except OSError as error:
        sys.exit(f"Can't listen at {host}:{port} ({error.strerror}). Set {setting} to a free port.")


if __name__ == "__main__":
    main()
