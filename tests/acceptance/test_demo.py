"""`make demo` keeps its promises, on a data folder of its own, and ends cleanly on Ctrl-C."""

import asyncio
import os
import re
import signal
import sys

from processes import CATALOGUE


async def test_the_demo_plays_its_day_and_stops_on_ctrl_c(settings_for, tmp_path):
    settings = settings_for(tmp_path / "data")
    (tmp_path / "data").parent.chmod(0o711)
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "dev.demo",
        env={**os.environ, **settings.environment()},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    assert process.stdout is not None
    said = []
    while "  Logs " not in "".join(said):
        line = (await process.stdout.readline()).decode()
        assert line, "the demo ended early:\n" + "".join(said)
        said.append(line)
    day = "".join(said)
    process.send_signal(signal.SIGINT)
    rest, _ = await process.communicate()
    assert process.returncode == 0, rest.decode()

    said = [" ".join(line.split()[2:]) for line in day.splitlines()]  # without the seconds
    assert said.count("active done Nobody owes anything.") == 5
    assert any(line.startswith("activating retrying The partner erp did not do it yet") for line in said)
    assert "activating blocked The partner bank refused: Open the payee at the bank. Treasury decides." in said
    assert "Nobody can tell yet whether the partner bank did it" in day
    assert day.count("the partner's ledger has it 1 time(s)") == 3
    assert "worker ended with exit code -9, starting it again" in day
    assert re.search(r"marks screen_sanctions as done: operation \S+ is proposed", day)
    assert "booking waiting The partner hotel took the request and has not finished: Hold the room." in said
    assert "no_show done Nobody owes anything." in said
    assert said.count("released done Nobody owes anything.") == 3
    assert "returned done Nobody owes anything." in said
    assert "revoked done Nobody owes anything." in said
    assert re.search(r"^Left for you: Quarry Stone Oy \(DE\) \(VENDOR-\w+\) is blocked, ", day, re.MULTILINE)
    for process in CATALOGUE.values():
        assert f"--- {process.title} ---" in day
