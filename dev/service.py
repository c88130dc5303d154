"""One child process of the embedded stack: started, probed until ready, stopped or killed, and never orphaned."""

import asyncio
import contextlib
import ctypes
import fcntl
import os
import random
import signal
import socket
import sys
import tempfile
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import IO

from dev.errors import ServiceEnded, ServiceNotReady, ServiceStillRuns
from settings import Settings

Probe = Callable[[], Awaitable[bool]]

ROOT = Path(__file__).parent.parent
PROBE_EVERY = timedelta(milliseconds=25)
# A SIGKILLed child lets go within milliseconds; Postgres may still be writing its last checkpoint.
RELEASE_WITHIN = timedelta(seconds=30)

# On one machine, whoever works in the background lets those go first whom a person waits for.
IN_THE_BACKGROUND = 10
# Below the range from which the kernel serves outgoing connections.
PORTS = range(10000, 15000)
# Of ports that were given out: held for as long as this process lives.
_kept: list[int] = []

_PR_SET_PDEATHSIG = 1
# Loaded here and not between fork and exec, where another thread may hold the loader's lock.
_libc = ctypes.CDLL(None) if sys.platform == "linux" else None


@dataclass(frozen=True)
class Launch:
    """How to start a service; made anew for each start, so that it may look at the disk first."""

    command: Sequence[str]
    env: Mapping[str, str] = field(default_factory=dict[str, str])
    user: int | None = None
    group: int | None = None
    niceness: int = 0


@dataclass(frozen=True)
class Service:
    """What is known about a service before it runs."""

    name: str
    launch: Callable[[], Launch]
    ready: Probe
    stop_signal: signal.Signals = signal.SIGTERM
    # What the kernel sends when our own process dies, however it dies.
    orphan_signal: signal.Signals = signal.SIGKILL
    grace: timedelta = timedelta(seconds=10)
    ready_within: timedelta = timedelta(minutes=5)


class Child:
    """The running side of a `Service`. Start it from the main thread: the kernel counts the death of the thread that
    forked, not of the process, as the death of the parent."""

    def __init__(self, service: Service, *, data_dir: Path) -> None:
        self.service = service
        self.log = data_dir / "logs" / f"{service.name}.log"
        self._lock = data_dir / "run" / f"{service.name}.lock"
        self._process: asyncio.subprocess.Process | None = None
        self._log_start = 0

    @property
    def name(self) -> str:
        return self.service.name

    @property
    def pid(self) -> int | None:
        return self._process.pid if self.running and self._process else None

    @property
    def running(self) -> bool:
        return self._process is not None and self._process.returncode is None

    @property
    def exit_code(self) -> int | None:
        return self._process.returncode if self._process else None

    async def start(self, extra_env: Mapping[str, str] | None = None) -> None:
        """Start the process; `wait_ready` tells when it is of use."""
        with await self.released() as lock, self._open_log() as log:
            launch = self.service.launch()
            self._process = await asyncio.create_subprocess_exec(
                *launch.command,
                cwd=ROOT,
                env={**_environment(), **launch.env, **(extra_env or {})},
                stdin=asyncio.subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                user=launch.user,
                group=launch.group,
                extra_groups=None if launch.user is None else [],
                # The child and all it forks inherit the lock: it is free again when the last of them has ended,
                # which neither a pid file nor a process table can tell without guessing.
                pass_fds=(lock.fileno(),),
                # Ctrl-C in a terminal goes to the whole group; we stop our children ourselves, in order.
                start_new_session=True,
                preexec_fn=_before_exec(os.getpid(), self.service.orphan_signal, launch.niceness),
            )
            lock.truncate(0)
            lock.write(str(self._process.pid))

    async def released(self) -> IO[str]:
        """Wait for an earlier life of this service to have ended entirely; gives the lock that says so."""
        self._lock.parent.mkdir(parents=True, exist_ok=True)
        lock = self._lock.open("a+")
        try:
            async with asyncio.timeout(RELEASE_WITHIN.total_seconds()):
                while True:
                    with contextlib.suppress(BlockingIOError):
                        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                        return lock
                    await asyncio.sleep(PROBE_EVERY.total_seconds())
        except BaseException as error:
            lock.seek(0)
            pid = lock.read()
            lock.close()
            if isinstance(error, TimeoutError):
                raise ServiceStillRuns(self.name, pid) from None
            raise

    async def wait_ready(self) -> None:
        seconds = self.service.ready_within.total_seconds()
        try:
            async with asyncio.timeout(seconds):
                while not await self.service.ready():
                    self._check_running()
                    await asyncio.sleep(PROBE_EVERY.total_seconds())
                # Something else may have answered on our port.
                self._check_running()
        except TimeoutError:
            raise ServiceNotReady(self.name, seconds, self.log, self.last_lines()) from None

    async def wait(self) -> int | None:
        """Wait for the process to end."""
        return await self._process.wait() if self._process else None

    async def stop(self) -> None:
        """Ask it to end; insist after its grace."""
        if not self.running:
            return
        self.send(self.service.stop_signal)
        try:
            async with asyncio.timeout(self.service.grace.total_seconds()):
                await self.wait()
        except TimeoutError:
            await self.kill()

    async def kill(self) -> None:
        self.send(signal.SIGKILL)
        await self.wait()

    def send(self, number: signal.Signals) -> None:
        if self.running and self._process:
            with contextlib.suppress(ProcessLookupError):
                self._process.send_signal(number)

    def _check_running(self) -> None:
        if not self.running:
            raise ServiceEnded(self.name, self.exit_code, self.log, self.last_lines())

    def _open_log(self) -> IO[bytes]:
        self.log.parent.mkdir(parents=True, exist_ok=True)
        log = self.log.open("ab")
        self._log_start = log.tell()
        return log

    def said(self) -> str:
        """What the running process has written so far."""
        with self.log.open("rb") as log:
            log.seek(self._log_start)
            return log.read().decode(errors="replace")

    def last_lines(self, count: int = 15) -> str:
        return "\n".join(self.said().splitlines()[-count:])


async def run_once(service: Service, *, data_dir: Path) -> None:
    """Run a service that ends by itself, such as the migrations; anything but exit code 0 is an error."""
    child = Child(service, data_dir=data_dir)
    await child.start()
    try:
        async with asyncio.timeout(service.ready_within.total_seconds()):
            exit_code = await child.wait()
    except TimeoutError:
        raise ServiceNotReady(
            service.name, service.ready_within.total_seconds(), child.log, child.last_lines()
        ) from None
    finally:
        await child.kill()
    if exit_code != 0:
        raise ServiceEnded(service.name, exit_code, child.log, child.last_lines())


def http_probe(port: int, path: str) -> Probe:
    """Ready when our own `path` answers 200. By hand: a full HTTP client costs more than what it would ask."""

    async def ready() -> bool:
        try:
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
        except OSError:
            return False
        with contextlib.closing(writer):
            writer.write(f"GET {path} HTTP/1.0\r\nHost: 127.0.0.1:{port}\r\n\r\n".encode())
            try:
                return b" 200 " in await reader.readline()
            except OSError:
                return False

    return ready


def port_is_free(port: int) -> bool:
    with socket.socket() as probe:
        # As servers do it: connections of an earlier server that the kernel still remembers don't count.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
        return True


def free_ports(count: int) -> list[int]:
    """Ports where nobody listens, at random, and none that another process of ours was given and does not use yet."""
    folder = Path(tempfile.gettempdir()) / f"caseward-ports-{os.getuid()}"
    folder.mkdir(exist_ok=True)
    found: list[int] = []
    for port in random.sample(PORTS, len(PORTS)):
        lock = os.open(folder / str(port), os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(lock)
            continue
        if not port_is_free(port):
            os.close(lock)
            continue
        _kept.append(lock)
        found.append(port)
        if len(found) == count:
            return found
    message = f"no {count} ports of {PORTS} are free"
    raise OSError(message)


def background(settings: Settings) -> int:
    """How nice whoever works in the background is to those for whom a person waits; tests wait for everybody."""
    return 0 if settings.env == "test" else IN_THE_BACKGROUND


def _environment() -> dict[str, str]:
    """Ours, without the settings: a child gets those from the stack's, not from the terminal's."""
    return {name: value for name, value in os.environ.items() if not name.startswith("CASEWARD_")}


def _before_exec(parent: int, orphan_signal: signal.Signals, niceness: int) -> Callable[[], None]:
    """The kernel's promise that a child does not outlive us, where there is one (Linux), and its priority."""
    prctl = _libc.prctl if _libc is not None else None

    def prepare() -> None:
        os.nice(niceness)
        if prctl is None:
            return
        prctl(_PR_SET_PDEATHSIG, int(orphan_signal))
        if os.getppid() != parent:  # we died before the promise was made
            os._exit(1)

    return prepare
