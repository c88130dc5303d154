"""`make demo` keeps its promises, on a data folder of its own, and ends cleanly on Ctrl-C."""

import asyncio
import os
import signal
import sys


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
    while "Ctrl-C stops all" not in "".join(said):
        line = (await process.stdout.readline()).decode()
        assert line, "the demo ended early:\n" + "".join(said)
        said.append(line)
    day = "".join(said)
    process.send_signal(signal.SIGINT)
    rest, _ = await process.communicate()
    assert process.returncode == 0, rest.decode()

    assert day.count("active      done") == 5
    assert "activating  retrying  The partner erp did not do it yet" in day
    assert "activating  blocked   The partner bank refused: Open the payee at the bank. Treasury decides." in day
    assert "Nobody can tell yet whether the partner bank did it" in day
    assert day.count("the partner's ledger has it 1 time(s)") == 2
    assert "worker ended with exit code -9, starting it again" in day
