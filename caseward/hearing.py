"""Callbacks as a destination of the outbox: each is brought to the body that can read it."""

from collections.abc import Sequence

from caseward.activity import EffectRunner
from caseward.cases.effects import LeaseHeld
from caseward.outbox.dispatcher import DestinationAway
from caseward.outbox.store import Claimed


class ToActivities:
    """Delivers by taking the callback in; whether a workflow runs is no matter."""

    def __init__(self, runner: EffectRunner) -> None:
        self._runner = runner

    async def __call__(self, messages: Sequence[Claimed]) -> None:
        """Deliver messages of one case. Raises DestinationAway while an attempt is under way, which comes first."""
        for message in messages:
            partner, event_id = message.payload["partner"], message.payload["event_id"]
            try:
                await self._runner.hear(message.case_id, partner=partner, event_id=event_id)
            except LeaseHeld as held:
                raise DestinationAway(str(held)) from held
