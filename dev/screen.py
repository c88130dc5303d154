"""The stack on a terminal: one line for each service, and from the logs what a person should not miss."""

import asyncio
import re
from datetime import timedelta
from pathlib import Path

from sqlalchemy import make_url

from dev.stack import Stack

_LOOK_EVERY = timedelta(seconds=0.5)
_WORTH_SHOWING = re.compile(r'"level": ?"(warning|error|critical)"|\b(WARNING|ERROR|CRITICAL)\b|Traceback')
# These two report every client that went away as a warning or error; their ends are told by the supervisor.
_QUIET = {"postgres", "temporal"}


def show(line: str) -> None:
    print(line, flush=True)


def show_addresses(stack: Stack) -> None:
    settings = stack.settings
    rows = {
        "api": [
            ("Console", f"http://127.0.0.1:{settings.api_port}/"),
            ("API", f"http://127.0.0.1:{settings.api_port}/openapi.json"),
            ("Metrics", f"http://127.0.0.1:{settings.api_port}/metrics{_of_the_worker(stack)}"),
        ],
        "sandbox": [
            ("Partners", f"http://127.0.0.1:{settings.sandbox_port}/_control/ledger"),
            ("Mail", f"http://127.0.0.1:{settings.sandbox_port}/mail"),
        ],
        "temporal": [("Temporal", f"{stack.temporal_address}, Web UI http://127.0.0.1:{settings.temporal_ui_port}")],
        "postgres": [("Postgres", make_url(stack.database_url).set(drivername="postgresql").render_as_string())],
    }
    for name, lines in rows.items():
        if name in stack.children:
            for title, address in lines:
                show(f"  {title:<10} {address}")
    show(f"  {'Logs':<10} {settings.data_dir / 'logs'}")


def _of_the_worker(stack: Stack) -> str:
    port = stack.settings.metrics_port
    return f", the worker's http://127.0.0.1:{port}/metrics" if port and "worker" in stack.children else ""


async def show_warnings(stack: Stack) -> None:
    """Until cancelled: follow the logs of our own processes and show the lines that tell of trouble."""
    followed = {child.log: child.name for child in stack.children.values() if child.name not in _QUIET}
    positions = {log: _size(log) for log in followed}
    while True:
        await asyncio.sleep(_LOOK_EVERY.total_seconds())
        for log, name in followed.items():
            with log.open("rb") as file:
                file.seek(positions[log])
                # Up to the last whole line; the rest is still being written.
                written, newline, _ = file.read().rpartition(b"\n")
            positions[log] += len(written) + len(newline)
            for line in written.decode(errors="replace").splitlines():
                if _WORTH_SHOWING.search(line):
                    show(f"{name:<8} | {line}")


def _size(log: Path) -> int:
    return log.stat().st_size
