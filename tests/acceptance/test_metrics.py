"""Every process of a whole stack serves its own metrics, a second worker on the same machine none."""

from uuid import uuid4

import httpx2
import pytest_asyncio
from prometheus_client.parser import text_string_to_metric_families

from cli.tokens import sign_token
from dev.service import free_ports
from dev.stack import Stack
from tests.integration.office import VENDOR, Person, new_key


@pytest_asyncio.fixture(loop_scope="session")
async def stack(settings_for, tmp_path):
    settings = settings_for(tmp_path / "data")
    (temporal,) = free_ports(1)
    async with Stack(settings.model_copy(update={"temporal_metrics_port": temporal})) as stack:
        yield stack


async def scraped(port: int) -> dict[str, float]:
    """By name: the sum over all series."""
    async with httpx2.AsyncClient(trust_env=False, timeout=20) as http:
        answer = await http.get(f"http://127.0.0.1:{port}/metrics")
    assert answer.status_code == 200
    found: dict[str, float] = {}
    for family in text_string_to_metric_families(answer.text):
        for sample in family.samples:
            found[sample.name] = found.get(sample.name, 0) + sample.value
    return found


async def test_what_the_api_accepts_and_the_worker_does_is_counted_where_it_happens(stack: Stack):
    settings = stack.settings
    token = sign_token(settings, actor="requester-1", roles=["vendor_requester"])
    person = Person(settings.api_url, f"Bearer {token}")
    opened = await person.command("/v1/vendor-onboarding", {"business_key": new_key(), "subject": VENDOR})
    key = uuid4().hex
    for _ in range(15):  # asked again by the same key, the same operation is waited for
        submitted = await person.take(opened.json(), "submit", key=key, Prefer="wait=20")
        if submitted.json()["state"] == "completed":
            break
    assert submitted.json()["state"] == "completed", submitted.text
    await person.http.aclose()
    stack.add_worker("second")
    await stack.start_service("second")  # on the same machine, with the same settings
    api, worker = await scraped(settings.api_port), await scraped(settings.metrics_port)
    assert (api["caseward_operations_accepted_total"], worker["caseward_operations_accepted_total"]) == (2, 0)
    steps = len(submitted.json()["steps"])
    assert api["caseward_attempts_total"] == 0
    assert worker["caseward_attempts_total"] >= steps  # a slow machine may need more
    assert worker["caseward_operation_dispatch_seconds_count"] == 2
    assert (api["caseward_operation_outcome_seconds_count"], worker["caseward_operation_outcome_seconds_count"]) == (
        1,
        1,
    )
    assert (api["caseward_database_up"], "caseward_database_up" in worker) == (1, False)
    sdk = await scraped(settings.temporal_metrics_port)
    assert sdk["temporal_activity_schedule_to_start_latency_count"] >= steps
