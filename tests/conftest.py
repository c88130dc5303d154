"""What tests of every kind share."""

from collections.abc import Callable
from pathlib import Path

import hypothesis
import pytest
import pytest_asyncio

from caseward.memory import collect_seldom
from dev.service import free_ports
from settings import Settings

# How long an example takes says something of the machine, and nothing of the rule; what failed is told with its blob.
hypothesis.settings.register_profile(
    "caseward",
    deadline=None,
    print_blob=True,
    database=None,
    suppress_health_check=list(hypothesis.HealthCheck),
)
hypothesis.settings.load_profile("caseward")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--full", action="store_true", help="every kill of the matrix and the long soak")
    parser.addoption("--seed", type=int, default=None, help="what to make chance repeat")


# By folder: what takes longest begins first, so that the processes of `make test` end at about the same time.
FIRST = ("drill", "faults", "acceptance", "workflows", "integration")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """What only `make faults` runs is left out of the short sample, not skipped in it."""
    items.sort(key=_turn)
    if not config.getoption("--full"):
        long = [item for item in items if item.get_closest_marker("full")]
        config.hook.pytest_deselected(items=long)
        items[:] = [item for item in items if item not in long]


def pytest_collection_finish() -> None:
    collect_seldom()  # a look through all that the tests hold takes a second, and hits whoever is at work


def _turn(item: pytest.Item) -> int:
    folder = item.path.relative_to(Path(__file__).parent).parts[0]
    return FIRST.index(folder) if folder in FIRST else len(FIRST)


@pytest.fixture(scope="session")
def settings_for() -> Callable[[Path], Settings]:
    """Settings for a stack of the test's own: its data folder, ports nobody uses, failpoints honoured."""
    return _settings_for


def _settings_for(data_dir: Path) -> Settings:
    api, temporal, temporal_ui, sandbox, smtp, metrics = free_ports(6)
    # The machine's own settings don't count: neither `.env`, nor the servers that a variable may name.
    return Settings(
        _env_file=None,
        env="test",
        data_dir=data_dir,
        api_port=api,
        temporal_port=temporal,
        temporal_ui_port=temporal_ui,
        sandbox_port=sandbox,
        sandbox_smtp_port=smtp,
        metrics_port=metrics,
        database_url=None,
        temporal_address=None,
    )


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def company(settings_for, tmp_path_factory):
    """A company on a whole stack of processes, one for all tests of a run."""
    from tests.faults.company import company_on  # unit tests need none of it

    # A case at rest whose workflow is lost is found by the reconciler's round, for which nobody waits an hour here.
    settings = settings_for(tmp_path_factory.mktemp("company") / "data").model_copy(update={"reconcile_round": 30.0})
    async with company_on(settings) as company:
        yield company
