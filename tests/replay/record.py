"""Record histories of every story: `python -m tests.replay.record [process ...]`, for a process that has none yet.

Plays each row of the kill matrix, with nobody dying, on a real stack and keeps what Temporal wrote, for
`test_histories.py` to replay. What was recorded before stays: that old histories can be followed is what it shows.
"""

import asyncio
import os
import re
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from temporalio.client import Client as TemporalClient

from caseward.messages import workflow_id
from dev.service import free_ports
from settings import Settings
from tests.faults.company import company_on
from tests.faults.scenarios import SCENARIOS

HISTORIES = Path(__file__).parent / "histories"


def file_of(process: str, row: str) -> Path:
    """Where the history of a row stands."""
    name = re.sub(r"[^a-z_]+", "_", row.removeprefix(f"{process}: ")).strip("_")
    return HISTORIES / process / f"{name}.json"


async def record(settings: Settings, processes: Sequence[str]) -> None:
    async with company_on(settings) as company:
        temporal = await TemporalClient.connect(company.stack.temporal_address, namespace="caseward")
        for process in processes:
            for scenario in SCENARIOS[process]:
                path = file_of(process, scenario.name)
                if path.exists():
                    continue
                told = await scenario.act(company, await scenario.arrange(company))
                await company.settled(told, scenario.ends)
                assert not await company.violations([told["case_id"]])
                history = await temporal.get_workflow_handle(workflow_id(process, told["case_id"])).fetch_history()
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(history.to_json())
                print(f"{scenario.name}: {len(history.events)} events")  # noqa: T201 - a command for people


if __name__ == "__main__":
    free = free_ports(5)
    with tempfile.TemporaryDirectory(prefix="caseward-record-") as folder:
        Path(folder).chmod(0o711)  # Postgres may run as another user
        asyncio.run(
            record(
                Settings(
                    _env_file=None,
                    env="test",
                    data_dir=Path(folder) / "data",
                    api_port=free[0],
                    temporal_port=free[1],
                    temporal_ui_port=free[2],
                    sandbox_port=free[3],
                    sandbox_smtp_port=free[4],
                    metrics_port=0,
                ),
                sys.argv[1:] or list(SCENARIOS),
            )
        )
    sys.stdout.flush()
    os._exit(0)  # Temporal's client may abort an ordinary interpreter exit
