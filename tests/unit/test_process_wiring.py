"""Stories and activities against their declaration: what is missing is named when the worker starts."""

import pytest

from activities.booking import BookingSteps
from activities.vendor_onboarding import VendorOnboardingSteps
from caseward.activity import Call, EffectRunner, NotNeeded, effect, step_activities, undo
from caseward.errors import DeclarationInvalid
from caseward.process import IMPOSSIBLE, NONE_NEEDED, Catalogue, Nothing, Strict
from caseward.workflow.case import CaseWorkflow, stories_of
from caseward.workflow.stories import story_faults
from processes import CATALOGUE
from processes.booking import BOOKING
from processes.vendor_onboarding import VENDOR_ONBOARDING
from tests.unit.nowhere import nowhere
from tests.unit.test_process_faults import BOOK, LEAVE, Leave, replace, with_step, with_transition
from worker import find_workflows


class Booked(Strict):
    number: str


@stories_of(LEAVE)
class LeaveStories(CaseWorkflow):
    async def approve(self) -> None: ...


@stories_of(LEAVE)
class NoStories(CaseWorkflow):
    pass


@stories_of(LEAVE)
class TooManyStories(CaseWorkflow):
    async def approve(self) -> None: ...

    async def cancel(self) -> None: ...


@stories_of(LEAVE)
class SynchronousStories(CaseWorkflow):
    def approve(self) -> None: ...


class TestStories:
    def test_of_the_processes_that_run_here_are_all_told(self):
        assert list(story_faults(CATALOGUE, find_workflows(CATALOGUE))) == []

    def test_a_sound_one_has_no_faults(self):
        assert list(story_faults({"leave": LEAVE}, [LeaveStories])) == []

    def test_a_process_without_a_workflow(self):
        assert list(story_faults({"leave": LEAVE}, [])) == ["leave: no workflow is registered"]

    def test_a_workflow_without_a_process(self):
        assert list(story_faults({}, [LeaveStories])) == ["leave: a workflow without a process"]

    @pytest.mark.parametrize("stories", [NoStories, SynchronousStories])
    def test_steps_without_a_story(self, stories):
        assert list(story_faults({"leave": LEAVE}, [stories])) == [
            f"leave: transition approve has steps, but {stories.__name__} has no story of it"
        ]

    def test_something_to_undo_without_a_story(self):
        process = with_transition("cancel", source=frozenset({"booked"}), undoes=(BOOK,))
        assert list(story_faults({"leave": process}, [LeaveStories])) == [
            "leave: transition cancel has something to undo, but LeaveStories has no story of it"
        ]
        assert list(story_faults({"leave": process}, [TooManyStories])) == []

    def test_a_story_without_steps(self):
        assert list(story_faults({"leave": LEAVE}, [TooManyStories])) == [
            "leave: TooManyStories tells cancel, which has no steps"
        ]

    @pytest.mark.parametrize("name", ["step", "together", "status", "pending", "perform", "work_for"])
    def test_a_transition_named_like_a_word_of_the_workflow(self, name):
        process = with_transition("approve", name=name)
        found = list(story_faults({"leave": process}, [LeaveStories]))
        assert f"leave: transition {name} has a name that every workflow uses for something else" in found


class Activities:
    @effect(BOOK)
    async def book(self, call: Call[Leave]) -> Nothing: ...

    @undo(BOOK)
    async def unbook(self, call: Call[Leave], booked: Nothing) -> None: ...


def name_of(activity) -> str:
    """Under which name Temporal knows it."""
    return vars(activity)["__temporal_activity_definition"].name


def test_a_process_without_its_file_of_stories_is_named():
    with pytest.raises(DeclarationInvalid, match=r"leave: workflows/leave\.py is missing"):
        find_workflows(Catalogue([LEAVE]))


class TestActivities:
    def found(self, steps: object, process=LEAVE) -> tuple[str, ...]:
        with pytest.raises(DeclarationInvalid) as invalid:
            step_activities(process, steps, EffectRunner(None, {}))
        return invalid.value.faults

    def test_of_a_sound_process_are_named_after_process_and_step(self):
        activities = step_activities(LEAVE, Activities(), EffectRunner(None, {}))
        assert sorted(map(name_of, activities)) == ["leave.book", "leave.book:undo"]

    def test_one_that_is_missing(self):
        class NoUndo:
            book = Activities.book

        assert self.found(NoUndo()) == ("leave: step book:undo has no activity",)
        assert self.found(object()) == ("leave: step book has no activity", "leave: step book:undo has no activity")

    def test_one_without_a_step(self):
        class TooMany(Activities):
            @effect(replace(BOOK, name="bake"))
            async def bake(self, call: Call[Leave]) -> Nothing: ...

        assert self.found(TooMany()) == ("leave: the activity of bake has no step",)

    def test_a_compensation_where_none_is_needed(self):
        assert self.found(Activities(), with_step(undo=NONE_NEEDED)) == (
            "leave: the activity of book:undo has no step",
        )

    def test_a_result_of_another_type(self):
        assert self.found(Activities(), with_step(result=Booked)) == (
            "leave: the activity of book returns <class 'caseward.process.Nothing'>, not Booked",
        )

    def test_not_needed_is_a_result_too(self):
        class Sometimes(Activities):
            @effect(BOOK)
            async def book(self, call: Call[Leave]) -> Nothing | NotNeeded: ...

        assert len(step_activities(LEAVE, Sometimes(), EffectRunner(None, {}))) == 2

    def test_what_cannot_be_undone_still_has_an_activity_that_says_so(self):
        class Final:
            book = Activities.book

        activities = step_activities(with_step(undo=IMPOSSIBLE), Final(), EffectRunner(None, {}))
        assert sorted(map(name_of, activities)) == ["leave.book", "leave.book:undo"]

    @pytest.mark.parametrize(
        ("process", "steps"), [(VENDOR_ONBOARDING, VendorOnboardingSteps), (BOOKING, BookingSteps)]
    )
    def test_of_the_processes_that_run_here_are_complete(self, process, steps):
        undone = sum(step.undo is not NONE_NEEDED for step in process.steps.values())
        activities = step_activities(process, steps(nowhere()), EffectRunner(None, {}))
        assert len(activities) == len(process.steps) + undone
