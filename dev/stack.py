"""The embedded stack: every process of Caseward on one machine, started in order, stopped in reverse.

`make run`, the demo and the fault tests use this same class, so what the tests kill is what people run.
"""

import asyncio
import fcntl
import json
import os
import signal
import sys
from collections.abc import Callable, Iterable, Mapping
from datetime import timedelta
from typing import IO, Literal, Self, get_args

from dev.errors import DataDirInUse, PortTaken, StackError
from dev.keys import ensure_keys
from dev.postgres import Postgres
from dev.service import Child, Launch, Probe, Service, background, http_probe, port_is_free, run_once
from dev.temporal import temporal_service
from settings import Settings

Part = Literal["postgres", "temporal", "migrations", "sandbox", "worker", "api"]
PARTS: tuple[Part, ...] = get_args(Part)

EVERYBODY = {"*": "{name}@caseward.test"}  # whom the embedded stack mails to: all of it lands in the sandbox

_BACKOFF = timedelta(milliseconds=200)
_LONGEST_BACKOFF = timedelta(seconds=10)
# A child that lived this long died of something new: its next restart is quick again.
_STEADY_AFTER = timedelta(seconds=30)

_PORT_SETTINGS: Mapping[str, tuple[str, ...]] = {
    "temporal": ("temporal_port", "temporal_ui_port"),
    "sandbox": ("sandbox_port", "sandbox_smtp_port"),
    "worker": ("metrics_port", "temporal_metrics_port"),
    "api": ("api_port",),
}
_PORTS_OF_ONE_WORKER = tuple(f"CASEWARD_{setting.upper()}" for setting in _PORT_SETTINGS["worker"])


class Stack:
    """Use as `async with Stack(settings) as stack:`, or call `start` and `stop`, from the main thread.

    `only` leaves parts out; so do `database_url` and `temporal_address`, which name servers that run already.
    """

    def __init__(self, settings: Settings, *, only: Iterable[Part] = PARTS) -> None:
        self.settings = settings
        self.children: dict[str, Child] = {}
        self._postgres = Postgres(settings.data_dir)
        self._owner_lock: IO[str] | None = None
        self._stopped_on_purpose: set[str] = set()
        wanted = set(only)
        if settings.database_url is not None:
            wanted.discard("postgres")
        if settings.temporal_address is not None:
            wanted.discard("temporal")
        self.parts = tuple(part for part in PARTS if part in wanted)

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    @property
    def database_url(self) -> str:
        """Where Postgres is; the embedded one has an address once it was started."""
        return self.settings.database_url or self._postgres.url

    @property
    def temporal_address(self) -> str:
        return self.settings.temporal_address or f"127.0.0.1:{self.settings.temporal_port}"

    @property
    def environment(self) -> dict[str, str]:
        """What every child gets: all settings, with the addresses of the embedded servers filled in."""
        return {
            **self.settings.environment(),
            "CASEWARD_DATABASE_URL": self.database_url,
            "CASEWARD_TEMPORAL_ADDRESS": self.temporal_address,
            **({} if self.settings.mail_to else {"CASEWARD_MAIL_TO": json.dumps(EVERYBODY)}),
        }

    async def start(self, announce: Callable[[str], None] = lambda _: None) -> None:
        """Start every part and wait until each is ready; a start that fails leaves nothing running."""
        self._own_data_dir()
        try:
            self._make_children()
            await self._check_ports()
            for part in self.parts:
                announce(part)
                if part == "migrations":
                    await run_once(self._migrations(), data_dir=self.settings.data_dir)
                else:
                    await self.start_service(part)
        except BaseException:
            await self.stop()
            raise

    async def stop(self) -> None:
        """Stop all in reverse order: whoever depends on a service goes before it."""
        for name in reversed(self.children):
            await self.stop_service(name)
        if self._owner_lock:
            self._owner_lock.close()
            self._owner_lock = None

    async def start_service(self, name: str, extra_env: Mapping[str, str] | None = None) -> None:
        """Start one service and wait until it is ready. `extra_env` holds for this life only."""
        await self.launch_service(name, extra_env)
        await self.wait_ready(name)

    async def launch_service(self, name: str, extra_env: Mapping[str, str] | None = None) -> None:
        """Start one service without waiting, for those that are meant to die on the way up."""
        self._stopped_on_purpose.discard(name)
        await self.children[name].start(extra_env)

    def add_worker(self, name: str) -> None:
        """One more worker, to be started like any service; the first one has the port for metrics."""
        self.children[name] = Child(self._worker(name), data_dir=self.settings.data_dir)

    async def stop_service(self, name: str) -> None:
        self._stopped_on_purpose.add(name)
        await self.children[name].stop()

    async def restart(self, name: str, extra_env: Mapping[str, str] | None = None) -> None:
        await self.stop_service(name)
        await self.start_service(name, extra_env)

    async def kill(self, name: str) -> None:
        """SIGKILL. It stays dead until `start_service`, or until `supervise` notices."""
        await self.children[name].kill()

    def kill_all(self) -> None:
        """SIGKILL to all, for a person who can't wait for `stop`."""
        self._stopped_on_purpose.update(self.children)
        for child in self.children.values():
            child.send(signal.SIGKILL)

    async def wait_ready(self, name: str) -> None:
        await self.children[name].wait_ready()

    async def wait_ended(self, name: str) -> int | None:
        """Wait until a service has ended by itself, for example at a failpoint; gives its exit code."""
        return await self.children[name].wait()

    async def supervise(self, announce: Callable[[str], None] = lambda _: None) -> None:
        """Until cancelled: start again whatever ends without having been asked to. Who calls this leaves the
        starting to it."""
        async with asyncio.TaskGroup() as watches:
            for child in self.children.values():
                watches.create_task(self._keep_alive(child, announce))

    async def _keep_alive(self, child: Child, announce: Callable[[str], None]) -> None:
        clock = asyncio.get_running_loop().time
        backoff = _BACKOFF
        while True:
            started = clock()
            exit_code = await child.wait()
            if child.name in self._stopped_on_purpose:
                await asyncio.sleep(_BACKOFF.total_seconds())
                continue
            if clock() - started > _STEADY_AFTER.total_seconds():
                backoff = _BACKOFF
            announce(f"{child.name} ended with exit code {exit_code}, starting it again (log: {child.log})")
            await asyncio.sleep(backoff.total_seconds())
            backoff = min(backoff * 2, _LONGEST_BACKOFF)
            if not child.running and child.name not in self._stopped_on_purpose:
                try:
                    await child.start()
                except StackError as error:
                    announce(str(error))

    def _own_data_dir(self) -> None:
        data_dir = self.settings.data_dir
        # May be passed through but not listed: Postgres may have to run as another user.
        data_dir.mkdir(mode=0o711, parents=True, exist_ok=True)
        lock = (data_dir / "stack.lock").open("a+")
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            lock.seek(0)
            owner = lock.read()
            lock.close()
            raise DataDirInUse(data_dir, owner) from None
        lock.truncate(0)
        lock.write(str(os.getpid()))
        lock.flush()
        self._owner_lock = lock
        ensure_keys(data_dir / "keys")

    def _make_children(self) -> None:
        services = {
            "postgres": lambda: self._postgres.service,
            "temporal": lambda: temporal_service(self.settings),
            "sandbox": lambda: self._python("sandbox", "dev.sandbox", self._http_ready("sandbox", "/health/live")),
            "worker": lambda: self._worker("worker"),
            "api": lambda: self._python("api", "api", self._http_ready("api", "/health/ready")),
        }
        self.children = {
            part: Child(services[part](), data_dir=self.settings.data_dir) for part in self.parts if part in services
        }

    async def _check_ports(self) -> None:
        """Before anything starts: a taken port is told by the name of its setting, not by some server's log."""
        for name, child in self.children.items():
            # The children of a killed supervisor may not have let go of their ports yet.
            (await child.released()).close()
            for setting in _PORT_SETTINGS.get(name, ()):
                port = getattr(self.settings, setting)
                if port and not port_is_free(port):
                    raise PortTaken(setting, port)

    def _migrations(self) -> Service:
        async def ready() -> bool:  # runs to its end; nobody asks
            return True

        return self._python("migrations", "caseward.db.migrate", ready)

    def _python(self, name: str, module: str, ready: Probe, extra_env: Mapping[str, str] | None = None) -> Service:
        # The environment is made when it starts: Postgres has no port before its own start.
        return Service(
            name,
            launch=lambda: Launch(
                [sys.executable, "-m", module],
                # Unbuffered, or a killed process takes its last lines with it.
                env={**self.environment, "PYTHONUNBUFFERED": "1", **(extra_env or {})},
                niceness=0 if name == "api" else background(self.settings),
            ),
            ready=ready,
        )

    def _http_ready(self, name: str, path: str) -> Probe:
        return http_probe(getattr(self.settings, _PORT_SETTINGS[name][0]), path)

    def _worker(self, name: str) -> Service:
        async def ready() -> bool:
            return "worker ready" in self.children[name].said()

        ports = {} if name == "worker" else dict.fromkeys(_PORTS_OF_ONE_WORKER, "0")
        return self._python(name, "worker", ready, ports)
