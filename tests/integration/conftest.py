"""One Postgres for all tests that need no more than that, and one office for all tests of the API."""

import random
from collections.abc import AsyncIterator, Iterator
from datetime import timedelta

import psycopg
import pytest
import pytest_asyncio

from caseward.db.session import Database
from dev.stack import Stack
from tests.integration.office import Office, office_on


@pytest.fixture(autouse=True, scope="session")
def patience() -> Iterator[None]:
    """How busy this machine is decides nothing: what a test shifts its clock by is far more than this."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("caseward.cases.effects.LEASE_MARGIN", timedelta(seconds=30))
        patched.setattr("caseward.db.session.CONNECT_TIMEOUT", timedelta(minutes=1))
        patched.setattr("caseward.db.session.POOL_TIMEOUT", timedelta(minutes=1))
        yield


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def database(settings_for, tmp_path_factory) -> AsyncIterator[Database]:
    """A migrated database of this run's own."""
    settings = settings_for(tmp_path_factory.mktemp("engine") / "data")
    async with Stack(settings, only=("postgres", "migrations")) as stack:
        database = Database.connect(stack.database_url)
        yield database
        await database.close()


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def the_office(settings_for, tmp_path_factory) -> AsyncIterator[Office]:
    """The API on a Postgres of this run's own."""
    async with office_on(settings_for(tmp_path_factory.mktemp("api") / "data")) as office:
        yield office


@pytest.fixture
def office(the_office: Office) -> Office:
    return the_office


@pytest.fixture(autouse=True)
def nothing_paused(request: pytest.FixtureRequest) -> None:
    """Partners are shared by all tests, and what fails in one would trip the breaker in the next."""
    for name in {"database", "office"} & set(request.fixturenames):
        found = request.getfixturevalue(name)
        database = found if isinstance(found, Database) else found.database
        url = database.engine.url.set(drivername="postgresql")
        with psycopg.connect(url.render_as_string(hide_password=False), autocommit=True) as connection:
            connection.execute("TRUNCATE pauses, pause_changes")
            connection.execute("UPDATE effects SET paused_by = 'a pause that is gone' WHERE state = 'paused'")


@pytest.fixture
def dice() -> random.Random:
    """Chance, with its seed printed for the next time."""
    seed = random.randrange(2**32)
    print(f"seed {seed}")  # noqa: T201 - for the next time
    return random.Random(seed)
