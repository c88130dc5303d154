"""Temporal as a destination: one signal-with-start per case and batch, to the case's workflow."""

from collections.abc import Sequence
from datetime import timedelta

from temporalio.client import Client
from temporalio.common import (
    RetryPolicy,
    SearchAttributeKey,
    SearchAttributePair,
    TypedSearchAttributes,
    WorkflowIDReusePolicy,
)
from temporalio.service import RPCError, RPCStatusCode

from caseward.messages import PERFORM, TASK_QUEUE, CaseRef, News, Order, Perform, workflow_id
from caseward.outbox.dispatcher import DestinationAway
from caseward.outbox.store import Claimed
from caseward.process import Catalogue

RPC_TIMEOUT = timedelta(seconds=5)  # half of a claim
# A run fails where today's stories can't follow its history. The next one reads from Postgres what there is to do.
BEGUN_ANEW = RetryPolicy(
    initial_interval=timedelta(milliseconds=100), backoff_coefficient=4, maximum_interval=timedelta(minutes=1)
)
BUSINESS_KEY = SearchAttributeKey.for_keyword("CasewardBusinessKey")

# What says that the message itself is wrong; everything else says that Temporal is away, starting or overloaded.
_REFUSALS = frozenset(
    {
        RPCStatusCode.INVALID_ARGUMENT,
        RPCStatusCode.ALREADY_EXISTS,
        RPCStatusCode.PERMISSION_DENIED,
        RPCStatusCode.FAILED_PRECONDITION,
        RPCStatusCode.OUT_OF_RANGE,
    }
)

# A namespace that was lost and made anew has none of our search attributes, until the reconciler adds them.
_NO_ATTRIBUTE = "no mapping defined for search attribute"


class ToTemporal:
    """Delivers by signal-with-start: the first operation starts the workflow, a reopened case starts a new run."""

    def __init__(self, client: Client, catalogue: Catalogue) -> None:
        self._client = client
        self._catalogue = catalogue

    async def __call__(self, messages: Sequence[Claimed]) -> None:
        """Deliver messages of one case. Raises DestinationAway, or what is wrong with them."""
        payload = messages[0].payload
        ref = CaseRef(payload["process"], str(messages[0].case_id), payload["business_key"])
        process = self._catalogue[ref.process]
        try:
            await self._client.start_workflow(
                ref.process,
                ref,
                id=workflow_id(ref.process, ref.case_id),
                task_queue=TASK_QUEUE,
                id_reuse_policy=WorkflowIDReusePolicy.ALLOW_DUPLICATE,  # a reopened case is a new run
                retry_policy=BEGUN_ANEW,
                start_signal=PERFORM,
                start_signal_args=[together(messages)],
                search_attributes=TypedSearchAttributes([SearchAttributePair(BUSINESS_KEY, ref.business_key)]),
                static_summary=f"{process.title} · {ref.business_key}",
                static_details=f"Case `{ref.case_id}`",
                rpc_timeout=RPC_TIMEOUT,
            )
        except RPCError as fault:
            if fault.status in _REFUSALS and _NO_ATTRIBUTE not in fault.message:
                raise
            raise DestinationAway(f"Temporal: {fault.status.name}") from fault


def together(messages: Sequence[Claimed]) -> Perform:
    """One signal for all: every order, and the newest news. Raises KeyError or TypeError for a malformed payload."""
    orders = [_order(message.payload["order"]) for message in messages if message.payload["order"] is not None]
    news = max((News(**message.payload["news"]) for message in messages), key=lambda item: item.version)
    return Perform(
        orders,
        news,
        resync=any(message.payload.get("resync") is True for message in messages),
        again=any(message.again for message in messages),
    )


def _order(payload: dict[str, object]) -> Order:
    return Order(**payload)  # pyright: ignore[reportArgumentType] - a wrong one raises TypeError and is parked
