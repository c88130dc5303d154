"""The stories of booking."""

from caseward.workflow.case import CaseWorkflow, stories_of
from processes.booking import AUTHORISE, BOOKING, CAPTURE, CONFIRM, HOLD_CAR, HOLD_ROOM, NEW_DAYS, REFUND, VOUCHER


@stories_of(BOOKING)
class Bookings(CaseWorkflow):
    """From a draft to a guest who has left."""

    async def request(self) -> None:
        """No money before there is something to sell, no voucher before there is money."""
        await self.together(HOLD_ROOM, HOLD_CAR)
        await self.step(AUTHORISE)
        await self.step(CAPTURE)
        await self.step(VOUCHER)
        await self.step(CONFIRM)

    async def reschedule(self) -> None:
        """The guest keeps the old days until the new ones are sure."""
        await self.together(HOLD_ROOM, HOLD_CAR)
        await self.step(VOUCHER)
        await self.undo(VOUCHER, HOLD_CAR, HOLD_ROOM)
        await self.step(NEW_DAYS)

    async def cancel(self) -> None:
        """What can't be taken back comes last."""
        await self.undo(VOUCHER, HOLD_CAR, HOLD_ROOM)
        await self.step(REFUND)

    async def no_show(self) -> None:
        """Others may have the room and the car."""
        await self.undo(HOLD_CAR, HOLD_ROOM)
