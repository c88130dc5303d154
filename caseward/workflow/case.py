"""The workflow of a case: an inbox, one loop that owns all changes, and the words in which stories are told.

It holds no business truth. Whatever it needs it is told by the dispatcher's signal or reads from Postgres through an
activity, so that any run can be replaced by a new one at any moment.
"""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, ClassVar, TypeVar, cast, overload

from pydantic import BaseModel
from temporalio import workflow
from temporalio.common import RetryPolicy, SearchAttributeKey, SearchAttributeUpdate
from temporalio.exceptions import ActivityError, ApplicationError, CancelledError

from caseward import messages
from caseward.messages import (
    AdmitAnswer,
    AdmitCall,
    BlockCall,
    CaseRef,
    DeadlineCall,
    FinishAnswer,
    FinishCall,
    LoadAnswer,
    News,
    Offset,
    Order,
    Perform,
    StepAnswer,
    StepCall,
    TakeBackAnswer,
    TakeBackCall,
    activity_name,
)
from caseward.process import Process, Step
from caseward.workflow import telling

T = TypeVar("T")
R = TypeVar("R", bound=BaseModel)
R2 = TypeVar("R2", bound=BaseModel)
R3 = TypeVar("R3", bound=BaseModel)
W = TypeVar("W", bound="CaseWorkflow")

# Longer than any gateway's deadline with its probe, the settling of its outcome and a worker's bad moment together.
STEP_TIMEOUT = timedelta(minutes=2)
HEARTBEAT_TIMEOUT = timedelta(seconds=5)
ENGINE_TIMEOUT = timedelta(seconds=30)
LOCAL_TIMEOUT = timedelta(seconds=5)  # a local activity outliving its workflow task would run again beside itself
# Our own infrastructure is away: try without limit and without counting.
UNTIL_IT_WORKS = RetryPolicy(
    initial_interval=timedelta(milliseconds=200), backoff_coefficient=2, maximum_interval=timedelta(seconds=5)
)
FAULT_PAUSE = timedelta(seconds=5)  # before an operation that ended in a fault of ours is taken up again
DEADLINE_PAUSE = timedelta(seconds=5)  # between two questions whether a deadline has come
HISTORY_LIMIT = 4000  # events; the server suggests a new run at 4,096

STATE = SearchAttributeKey.for_keyword("CasewardState")
CONDITION = SearchAttributeKey.for_keyword("CasewardCondition")
RECOVERY_OWNER = SearchAttributeKey.for_keyword("CasewardRecoveryOwner")


class Superseded(Exception):
    """Another operation took the case over; nothing of this story may begin any more."""


class StoryMissing(Exception):
    """This version has no such story."""

    def __init__(self, name: str) -> None:
        super().__init__(f"this version has no story {name}")


def stories_of(process: Process) -> Callable[[type[W]], type[W]]:
    """Make a class of stories the workflow of a process; each story is an async method named as its transition."""

    def define(stories: type[W]) -> type[W]:
        # Without a type for `self`, because Temporal compares the signature with that of `__init__`.
        async def run(self, ref: CaseRef) -> None:  # noqa: ANN001 # pyright: ignore[reportUnknownParameterType, reportMissingParameterType]
            await cast("CaseWorkflow", self).work_for(ref)

        # Temporal wants `run` to belong to the very class that is the workflow.
        run.__qualname__, run.__module__ = f"{stories.__name__}.run", stories.__module__
        stories.process = process
        stories.run = workflow.run(cast("Any", run))  # pyright: ignore[reportAttributeAccessIssue]
        return workflow.defn(name=process.name)(stories)

    return define


class CaseWorkflow:
    """Works for one case. Handlers only append; the loop in `work_for` owns all changes."""

    process: ClassVar[Process]

    @workflow.init
    def __init__(self, ref: CaseRef) -> None:
        self._ref = ref
        self._news = News(version=0, status={})
        self._fence = 0
        """The highest fence seen; orders at or below it are old."""
        self._next: Order | None = None
        """The latest order that takes the case over and was not begun."""
        self._current: Order | None = None
        self._nudges: dict[tuple[str | None, str | None], int] = {}
        """By step and item: the version at which somebody last helped it."""
        self._admissions: list[tuple[str, dict[str, Any]]] = []
        self._told = False
        """The case's standing is known; a run that was told nothing reads it."""
        self._acting = 0
        """Activities under way; while there are none, a new run can take over."""
        self._astray = False
        """What this run believes is not to be trusted: a new one shall read from Postgres."""

    # Whoever can reach Temporal can send anything. Every argument has a default, because a handler that is called
    # without one fails the workflow task for ever.

    # --- what may be sent to it -------------------------------------------------------------------------------------

    @workflow.signal(name=messages.PERFORM, description="Accepted operations of this case, from the dispatcher.")
    def perform(self, told: Perform | None = None) -> None:
        """Take orders in; doubled and old ones change nothing. Sent with nothing by a person it is a mere wake."""
        told = told or Perform([])
        new_run = self._fence == 0
        if told.news is not None:
            try:
                self._hear(told.news)
            except (KeyError, TypeError, ValueError, AttributeError):  # made up by somebody: read what is true
                self._told = False
        for order in told.orders:
            if not order.takes_over:
                key = (order.step, order.item)
                self._nudges[key] = max(order.version, self._nudges.get(key, 0))
            elif order.fence > self._fence:
                self._fence, self._next = order.fence, order
            if order.takes_over:
                # What was over when it was accepted may have been delivered once more, long after: this run would
                # believe its news for ever. Only an opening that nobody tried to deliver before is sure to be the first
                # thing ever told.
                self._told = not (new_run and order.finished and (order.fence > 1 or told.again))
        if not told.orders:
            self._told = False  # a mere wake: read what there is to do
        if told.resync and not new_run:
            self._astray = True

    @workflow.signal(
        name=messages.OVERRIDE,
        description='An operator\'s override: {"override", "step", "item", "reason", "actor", "key"}.',
    )
    def override_signal(self, payload: Any = None, *_surplus: Any) -> None:
        """Take an override in; whether it is allowed is decided by the same command as everywhere.

        People type these: whatever they send must be answered by a refusal, not by a task that fails for ever.
        """
        self._admissions.append(self._admission(payload))

    @workflow.update(name=messages.OVERRIDE, description="As the signal, and answers whether it was accepted.")
    async def override_update(self, payload: Any = None) -> dict[str, Any]:
        """Admit an override and answer its operation; a refusal is an error with the refusal's code as type."""
        answer = await self._admit(*self._admission(payload))
        if not answer.accepted:
            problem = answer.problem or {}
            raise ApplicationError(str(problem.get("detail")), type=str(problem.get("code")), non_retryable=True)
        told = {"accepted": True, "operation_id": answer.operation_id}
        return {**told, "proposed": True} if answer.proposed else told

    @override_update.validator
    def validate_override(self, payload: Any = None) -> None:
        """Refuse what is not even the form of an override, before anything is written."""
        if not isinstance(payload, dict) or not isinstance(payload.get("override"), str):  # pyright: ignore[reportUnknownMemberType]
            message = 'an override is an object with at least "override" and "reason"'
            raise ApplicationError(message, type="input_invalid", non_retryable=True)

    @workflow.query(name="status", description="The case document without subject, title and actions.")
    def status(self) -> dict[str, Any]:
        """How the case stands, as far as this run was told."""
        return self._news.status

    @workflow.query(name="pending", description="The steps of the operation in flight that are not settled.")
    def pending(self) -> list[dict[str, Any]]:
        """Steps still owed."""
        return telling.pending_steps(self._news.status)

    @workflow.query(name="blocked", description="The steps that wait for their recovery owner's decision.")
    def blocked(self) -> list[dict[str, Any]]:
        """Steps that somebody must decide on."""
        return telling.blocked_steps(self._news.status)

    # --- the loop -----------------------------------------------------------------------------------------------------

    async def work_for(self, ref: CaseRef) -> None:
        """Perform operation after operation; end in a final state, or in a new run when the history grew."""
        beside = [asyncio.create_task(self._admit_signals()), asyncio.create_task(self._watch_the_deadline())]
        while True:
            if self._next is not None and self._history_grew() and self._can_hand_over():
                workflow.continue_as_new(ref)  # however quickly orders follow each other; the next run reads this one
            elif self._next is not None:
                await self._perform(self._next)
            elif self._astray and not self._taken_in():
                workflow.continue_as_new(ref)
            elif not self._told:
                await self._load()
            elif self._news.final and self._idle():
                for task in beside:
                    task.cancel()
                return
            elif self._history_grew() and self._idle():
                workflow.continue_as_new(ref)
            else:
                await self._rest()

    def _idle(self) -> bool:
        """Nothing was taken in that is not worked off."""
        return self._told and not self._taken_in()

    def _can_hand_over(self) -> bool:
        """All that was taken in stands in Postgres, where the next run reads it."""
        return not self._admissions and self._acting == 0 and workflow.all_handlers_finished()

    def _taken_in(self) -> bool:
        """An order, a person's override or a passing deadline is being worked off, or waits for its turn."""
        waiting = self._next is not None or bool(self._admissions) or self._acting > 0
        return waiting or not workflow.all_handlers_finished()

    def _history_grew(self) -> bool:
        info = workflow.info()
        return info.is_continue_as_new_suggested() or info.get_current_history_length() > HISTORY_LIMIT

    async def _load(self) -> None:
        """Read from Postgres what this run was not told."""
        self._told = True  # a wake that comes while this reads makes it read again
        loaded = await workflow.execute_activity(
            messages.LOAD,
            self._ref,
            result_type=LoadAnswer,
            start_to_close_timeout=ENGINE_TIMEOUT,
            retry_policy=UNTIL_IT_WORKS,
            summary="Read how the case stands",
        )
        self._hear(loaded.news)
        if self._next is None or self._next.fence <= loaded.fence:
            # What Postgres says wins, also over a higher fence that somebody made up and signalled.
            self._fence, self._next = loaded.fence, loaded.order

    async def _rest(self) -> None:
        """Wait for an order, a wake, or other news."""
        news = self._news

        def something_came() -> bool:
            grown = self._history_grew() or self._news.final or self._astray
            return self._next is not None or not self._told or self._news is not news or (grown and self._idle())

        await workflow.wait_condition(something_came)

    async def _watch_the_deadline(self) -> None:
        """Say when the state's deadline has come, whether the case rests or its pending state's steps run."""
        asked: tuple[str | None, int] | None = None
        while True:
            visited = self._visited()
            timeout = None
            if self._news.deadline_at is not None:
                # By Postgres' clock it may be earlier than by ours.
                pause = DEADLINE_PAUSE if asked == visited else timedelta(0)
                due = datetime.fromisoformat(self._news.deadline_at).astimezone(UTC)
                timeout = max(due - workflow.now(), pause)
            try:
                await workflow.wait_condition(
                    lambda known=visited: self._visited() != known,
                    timeout=timeout,
                    timeout_summary="The state's deadline",
                )
            except TimeoutError:
                asked = visited
                call = DeadlineCall(self._ref.process, self._ref.case_id, self._news.visit)
                passed = workflow.execute_activity(
                    messages.PASS_DEADLINE,
                    call,
                    result_type=News,
                    start_to_close_timeout=ENGINE_TIMEOUT,
                    retry_policy=UNTIL_IT_WORKS,
                    summary="The state's deadline passed",
                )
                self._hear(await self._act(passed))

    def _visited(self) -> tuple[str | None, int]:
        """What a deadline belongs to: its instant, and the visit of the state."""
        return self._news.deadline_at, self._news.visit

    async def _perform(self, order: Order) -> None:
        """Tell one operation's story to its end, or until another operation takes the case over."""
        self._current, self._next = order, None
        if order.finished:
            return
        story = asyncio.create_task(self._tell(order))
        await workflow.wait_condition(lambda: story.done() or self._taken_over(order) or self._may_roll())
        if not story.done() and not self._taken_over(order):
            workflow.continue_as_new(self._ref)  # it waits, and the next run reads from Postgres for what
        try:
            await story  # a superseded story first ends what it has begun
        except Superseded:
            self._told = self._next is not None
        except (asyncio.CancelledError, CancelledError):
            raise
        except Exception:  # noqa: BLE001 - whatever went wrong must not end the case's workflow
            workflow.logger.exception("operation could not be performed")
            await workflow.sleep(FAULT_PAUSE, summary="After a fault of ours")
            self._told = False

    def _may_roll(self) -> bool:
        """The history has grown or the run went astray, and nothing is under way that a new run could not take up."""
        return (self._astray or self._history_grew()) and self._acting == 0 and not self._taken_in()

    async def _act(self, work: Awaitable[T]) -> T:
        self._acting += 1
        try:
            return await work
        finally:
            self._acting -= 1

    def _taken_over(self, order: Order) -> bool:
        return self._fence > order.fence

    async def _tell(self, order: Order) -> None:
        offsets = order.offsets
        to_state: str | None = None
        told = False
        while True:
            for offset in offsets:
                await self._offset(order, offset)
            if order.story and not told:
                to_state, told = await self._story(order), True
            answer = await self._finish(order, to_state)
            match answer.state:
                case "finished":
                    return
                case "superseded":
                    raise Superseded
                case "offsets":
                    offsets = answer.offsets
                case "blocked":
                    offsets, told = [], False  # once somebody says `retry`, the story is told again
                    await self._helped(order, None, None, answer.version)

    async def _story(self, order: Order) -> str | None:
        """Tell the story until it ends; one that raises or is missing blocks for engineering and is told again."""
        while True:
            name = order.tells or order.name
            story = getattr(self, name, None) if self.process.transition(name) else None
            try:
                if story is None:
                    raise StoryMissing(name)  # noqa: TRY301 - one way to block
                return await story()
            except (Superseded, asyncio.CancelledError, CancelledError):
                raise
            except Exception as fault:  # noqa: BLE001 - a story's fault must not fail the workflow task for ever
                workflow.logger.exception("story failed")
                cause = "story_missing" if isinstance(fault, StoryMissing) else "story_failed"
                block = BlockCall(
                    *(self._ref.process, self._ref.case_id, order.operation_id, order.fence),
                    cause=cause,
                    # The text of other errors may quote people's data, which has no place in a history.
                    message=str(fault) if isinstance(fault, StoryMissing) else type(fault).__name__,
                )
                news = await self._act(
                    workflow.execute_activity(
                        messages.BLOCK,
                        block,
                        result_type=News,
                        start_to_close_timeout=ENGINE_TIMEOUT,
                        retry_policy=UNTIL_IT_WORKS,
                        summary=f"{order.name} can't go on",
                    )
                )
                self._hear(news)
                await self._helped(order, None, None, news.version)

    async def _finish(self, order: Order, to_state: str | None) -> FinishAnswer:
        call = FinishCall(self._ref.process, self._ref.case_id, order.operation_id, order.fence, to_state)
        answer = await self._act(
            workflow.execute_local_activity(
                messages.FINISH,
                call,
                result_type=FinishAnswer,
                start_to_close_timeout=LOCAL_TIMEOUT,
                retry_policy=UNTIL_IT_WORKS,
            )
        )
        if answer.news is not None:
            self._hear(answer.news)
        return answer

    # --- the words of stories -----------------------------------------------------------------------------------------

    async def step(self, step: Step[R]) -> R | None:
        """Have the step's outside change made; returns its result, or None where it was left out or not needed."""
        return await self._step(step, None)

    async def each(self, step: Step[R], items: Sequence[str]) -> list[R | None]:
        """The step once for every item, side by side, results in their order; waits for all before anything else.

        An item is an id: it stands in the effect's key, so the same one twice would be one effect.
        """
        return await self._side_by_side(self._step(step, item) for item in items)

    @property
    def documents(self) -> list[str]:
        """Ids of the documents that the operation was accepted over."""
        return self._order().documents

    async def _step(self, step: Step[R], item: str | None) -> R | None:
        order = self._order()
        if step.each != (item is not None):
            message = f"{step.name} is told {'for each of several items' if step.each else 'once'}"
            raise ValueError(message)
        key = f"{order.operation_id}:{step.name}" + (f":{item}" if item else "")
        answer = await self._until_settled(order, self._call(order, step.name, key, item=item))
        return step.result.model_validate(answer.result) if answer.happened else None

    async def _side_by_side(self, work: Iterable[Coroutine[Any, Any, T]]) -> list[T]:
        """Wait for every side, so that nothing is offset beside a running effect."""
        sides = [asyncio.create_task(side) for side in work]
        if sides:
            await workflow.wait(sides)
        faults = [side.exception() for side in sides]  # each looked at, or asyncio complains of it
        for fault in faults:
            if fault is not None:
                raise fault
        return [side.result() for side in sides]

    @overload
    async def together(self, first: Step[R], second: Step[R2], /) -> tuple[R | None, R2 | None]: ...

    @overload
    async def together(
        self, first: Step[R], second: Step[R2], third: Step[R3], /
    ) -> tuple[R | None, R2 | None, R3 | None]: ...

    async def together(self, *steps: Step[Any]) -> tuple[Any, ...]:
        """Steps side by side, results in their order; waits for every side before anything else may happen."""
        return tuple(await self._side_by_side(self.step(step) for step in steps))

    async def undo(self, *steps: Step[Any]) -> None:
        """Take back what earlier operations left standing of these steps, the latest first, one after the other.

        From the first of them on this operation can't be undone: what it took back would have to be done again.
        """
        order = self._order()
        transition = self.process.transition(order.tells or order.name)
        undeclared = [step.name for step in steps if transition is None or step not in transition.undoes]
        if undeclared:
            message = f"{order.name} does not declare that it undoes {', '.join(undeclared)}"
            raise ValueError(message)
        if self._taken_over(order):
            raise Superseded
        call = TakeBackCall(
            *(self._ref.process, self._ref.case_id, order.operation_id, order.fence), [step.name for step in steps]
        )
        answer = await self._act(
            workflow.execute_local_activity(
                messages.TAKE_BACK,
                call,
                result_type=TakeBackAnswer,
                start_to_close_timeout=LOCAL_TIMEOUT,
                retry_policy=UNTIL_IT_WORKS,
            )
        )
        if answer.news is not None:
            self._hear(answer.news)
        if answer.state == "superseded":
            raise Superseded
        for offset in answer.offsets:
            await self._offset(order, offset)

    def _order(self) -> Order:
        if self._current is None:
            message = "a step outside a story"
            raise RuntimeError(message)
        return self._current

    def _call(self, order: Order, step: str, effect_key: str, **more: Any) -> StepCall:
        return StepCall(
            *(self._ref.process, self._ref.case_id, order.operation_id, order.fence), step, effect_key, **more
        )

    async def _offset(self, order: Order, offset: Offset) -> None:
        """Take an effect back: find out what became of it, then run its compensation if it happened."""
        if not offset.settled:
            call = self._call(order, offset.step, offset.effect_key, item=offset.item, settle_only=True)
            if not (await self._until_settled(order, call)).happened:
                return
        undo_key = offset.effect_key + ":undo"
        call = self._call(order, offset.step, undo_key, item=offset.item, direction="undo")
        await self._until_settled(order, call)

    async def _until_settled(self, order: Order, call: StepCall) -> StepAnswer:
        """Attempt after attempt, as the settling transactions say, with people's help between them."""
        while True:
            if self._taken_over(order):
                raise Superseded
            answer = await self._act(self._attempt(order, call))
            if answer.news is not None:
                self._hear(answer.news)
            match answer.state:
                case "settled":
                    return answer
                case "superseded":
                    raise Superseded
                case "blocked" | "paused":
                    await self._helped(order, telling.address(call), call.item, answer.version)
                case "retrying" | "waiting":
                    delay = timedelta(seconds=answer.delay) if answer.delay is not None else None
                    await self._helped(order, telling.address(call), call.item, answer.version, within=delay)

    async def _attempt(self, order: Order, call: StepCall) -> StepAnswer:
        """Run the step's activity; when the case is taken over, cancel it and await its outcome all the same."""
        direction = "do" if call.settle_only else call.direction
        if not self.process.has_code_for(call.step, direction):
            # No worker of this version has the activity: Temporal would try it for ever, and nobody would see.
            return await workflow.execute_activity(
                messages.STEP_MISSING,
                call,
                result_type=StepAnswer,
                start_to_close_timeout=ENGINE_TIMEOUT,
                retry_policy=UNTIL_IT_WORKS,
                summary=f"{telling.address(call)} is missing",
            )
        handle = workflow.start_activity(
            activity_name(self._ref.process, telling.address(call)),
            call,
            result_type=StepAnswer,
            start_to_close_timeout=STEP_TIMEOUT,
            heartbeat_timeout=HEARTBEAT_TIMEOUT,
            retry_policy=UNTIL_IT_WORKS,
            cancellation_type=workflow.ActivityCancellationType.WAIT_CANCELLATION_COMPLETED,
            summary=telling.summary(self.process, call),
        )
        await workflow.wait_condition(lambda: handle.done() or self._taken_over(order))
        if not handle.done():
            handle.cancel()
        try:
            return await handle
        except ActivityError as fault:
            # Once its cancellation was asked for, Temporal does not try an activity again, whatever ended it: a dead
            # worker, an outage of ours. What became of the effect the new operation finds out.
            if self._taken_over(order) or isinstance(fault.cause, CancelledError):
                raise Superseded from fault
            raise

    async def _helped(
        self, order: Order, step: str | None, item: str | None, version: int, *, within: timedelta | None = None
    ) -> None:
        """Wait until somebody helped this step after `version`, or `within` is over. Raises Superseded."""

        def something_came() -> bool:
            return self._nudges.get((step, item), 0) > version or self._taken_over(order)

        try:
            await workflow.wait_condition(something_came, timeout=within, timeout_summary=f"Next attempt: {step}")
        except TimeoutError:
            return
        if self._taken_over(order):
            raise Superseded

    # --- people who come by Temporal ----------------------------------------------------------------------------------

    def _admission(self, payload: Any) -> tuple[str, dict[str, Any]]:
        given = cast("dict[str, Any]", payload) if isinstance(payload, dict) else {"payload": str(payload)[:200]}
        key = given.get("key")
        return (f"temporal:{key}" if isinstance(key, str) and key else f"temporal:{workflow.uuid4()}"), given

    async def _admit_signals(self) -> None:
        while True:
            await workflow.wait_condition(lambda: bool(self._admissions))
            await self._admit(*self._admissions[0])
            self._admissions.pop(0)

    async def _admit(self, key: str, payload: dict[str, Any]) -> AdmitAnswer:
        return await workflow.execute_activity(
            messages.ADMIT,
            AdmitCall(self._ref.process, self._ref.case_id, key, payload),
            result_type=AdmitAnswer,
            start_to_close_timeout=ENGINE_TIMEOUT,
            retry_policy=UNTIL_IT_WORKS,
            summary="An override sent to the workflow",
        )

    # --- what Temporal's Web UI shows ---------------------------------------------------------------------------------

    def _hear(self, news: News) -> None:
        """Take in how the case stands, unless something newer is known."""
        if news.version <= self._news.version:
            return
        details, shows = telling.details(news.status), telling.attributes(news.status)
        if news.deadline_at is not None:
            datetime.fromisoformat(news.deadline_at).astimezone(UTC)  # raises here what must not raise in the loop
        shown, self._news = telling.attributes(self._news.status), news
        workflow.set_current_details(details)
        if shown != shows:
            state, condition, owner = shows
            updates: list[SearchAttributeUpdate[Any]] = [
                STATE.value_set(state),
                CONDITION.value_set(condition),
                RECOVERY_OWNER.value_set(owner) if owner else RECOVERY_OWNER.value_unset(),
            ]
            workflow.upsert_search_attributes(updates)  # pyright: ignore[reportUnknownMemberType] - the SDK's own
