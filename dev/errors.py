"""What can keep the embedded stack from running, each a sentence the person at the terminal can act on.

StackError
├── DataDirInUse        another stack works in this folder
├── PortTaken           names the setting to change
├── ServiceEnded        a service ended before it was ready, with the end of its log
├── ServiceNotReady     a service runs, but did not become ready in time
├── ServiceStillRuns    a process of an earlier stack holds on to the data
└── PostgresUnusable    the binaries or the data can't be used here
"""

from pathlib import Path


class StackError(Exception):
    """The stack can't do what was asked."""


class DataDirInUse(StackError):
    def __init__(self, data_dir: Path, owner: str) -> None:
        super().__init__(f"CASEWARD_DATA_DIR: another stack (process {owner}) is using {data_dir}")


class PortTaken(StackError):
    def __init__(self, setting: str, port: int) -> None:
        super().__init__(f"CASEWARD_{setting.upper()}: port {port} is taken")


class ServiceEnded(StackError):
    def __init__(self, name: str, exit_code: int | None, log: Path, last_lines: str) -> None:
        super().__init__(f"{name} ended with exit code {exit_code}; the end of {log}:\n{last_lines}")


class ServiceNotReady(StackError):
    def __init__(self, name: str, seconds: float, log: Path, last_lines: str) -> None:
        super().__init__(f"{name} was not ready after {seconds:.0f} s; the end of {log}:\n{last_lines}")


class ServiceStillRuns(StackError):
    def __init__(self, name: str, pid: str) -> None:
        super().__init__(f"{name} of an earlier stack still runs (process {pid}); end it and start again")


class PostgresUnusable(StackError):
    pass
