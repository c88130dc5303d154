"""Wrong declarations: each is refused at load with one sentence that says where and what."""

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from caseward.errors import DeclarationInvalid
from caseward.faults import faults
from caseward.process import (
    BLOCK,
    IMPOSSIBLE,
    NONE_NEEDED,
    UNDO,
    Block,
    Catalogue,
    Circumstance,
    Confirmation,
    Deadline,
    DocumentKind,
    Documents,
    Escalate,
    ForceCancel,
    Made,
    Nothing,
    Process,
    Role,
    State,
    Step,
    Strict,
    Take,
    Transition,
    Verdict,
)
from processes import CATALOGUE


class Leave(Strict):
    days: int = 1


class Named(Strict):
    sha256: str
    size: int


class Grounds(Strict):
    grounds: str


CLERK, CHIEF = frozenset({"clerk"}), frozenset({"chief"})
BOOK = Step("book", "Book it", partner="calendar", result=Nothing, undo="Unbook it")
STATES = (
    State("draft", "Draft", "Being written.", waiting_on="clerk"),
    State("booking", "Booking", "We are booking it."),
    State("booked", "Booked", "It stands in the calendar."),
    State("cancelling", "Cancelling", "We are taking it back."),
    State("cancelled", "Cancelled", "It was withdrawn.", final=True),
)
OPEN = Transition("open", "Ask", to="draft", roles=CLERK)
APPROVE = Transition(
    "approve", "Approve", source=frozenset({"draft"}), pending="booking", to="booked", roles=CHIEF, steps=(BOOK,)
)
CANCEL = Transition(
    "cancel", "Cancel", source=frozenset({"draft", "booking"}), pending="cancelling", to="cancelled", roles=CLERK
)
RETURN = Transition("return", "Return", source=frozenset({"booked"}), to="cancelled", roles=CLERK)
LEAVE = Process(
    "leave",
    "Leave",
    subject=Leave,
    headline=lambda leave: f"{leave.days} days",
    owner="office",
    teams=frozenset({"office", "it"}),
    roles=(Role("clerk", "Clerk"), Role("chief", "Chief")),
    states=STATES,
    transitions=(OPEN, APPROVE, CANCEL, RETURN),
    force_cancel=ForceCancel(pending="cancelling", to="cancelled"),
)


def with_state(name: str, /, **changes: Any) -> Process:
    return replace(LEAVE, states=tuple(replace(s, **changes) if s.name == name else s for s in STATES))


def with_transition(name: str, /, **changes: Any) -> Process:
    return replace(LEAVE, transitions=tuple(replace(t, **changes) if t.name == name else t for t in LEAVE.transitions))


def with_step(**changes: Any) -> Process:
    return with_transition("approve", steps=(replace(BOOK, **changes),))


def with_deadline(then: Any, *, state: str = "draft", after: timedelta = timedelta(days=1)) -> Process:
    return with_state(state, deadline=Deadline(after=after, then=then))


def undoing(**changes: Any) -> Process:
    """Leave that can be given back once it is booked, so that another one can be asked for."""
    back = replace(RETURN, pending="returning", undoes=(BOOK,), to="draft")
    transitions = (OPEN, APPROVE, CANCEL, replace(back, **changes))
    return replace(LEAVE, transitions=transitions, states=(*STATES, State("returning", "Returning", "Taking it out.")))


UNDOING = undoing()
LASTING = replace(BOOK, undo=NONE_NEEDED)
TWO = Confirmation(by=2, roles=CHIEF)
LONG = replace(TWO, when=Circumstance(of=lambda leave: leave.days > 9, words="a long leave"))
ELSEWHERE = State("elsewhere", "Elsewhere", "Nobody comes here.", waiting_on="clerk")

WRONG: dict[str, tuple[Process, str]] = {
    # what is undone on the way
    "undoes without a pending state": (
        undoing(pending=None),
        "transition return: undoes what was done before, but has no pending state to be in meanwhile",
    ),
    "undoes twice": (undoing(undoes=(BOOK, BOOK)), "transition return: undoes book twice"),
    "undoes a stranger": (
        undoing(undoes=(replace(BOOK, name="bake"),)),
        "transition return: undoes bake, which is no step of this process",
    ),
    "undoes another one of that name": (
        undoing(undoes=(replace(BOOK, title="Bake it"),)),
        "transition return: undoes book, which is no step of this process",
    ),
    "undoes what has no compensation": (
        replace(
            UNDOING,
            transitions=(
                OPEN,
                replace(APPROVE, steps=(LASTING,)),
                CANCEL,
                replace(UNDOING.transitions[3], undoes=(LASTING,)),
            ),
        ),
        "transition return: undoes book, which has no compensation",
    ),
    "undoes at the opening": (
        replace(LEAVE, transitions=(replace(OPEN, undoes=(BOOK,), pending="booking"), APPROVE, CANCEL, RETURN)),
        "transition open: opens the case, so there is nothing yet that it could undo",
    ),
    "a deadline that would undo what undoes": (
        replace(
            undoing(to="given_back"),
            states=(
                *UNDOING.states,
                State("given_back", "Given back", "Once more.", deadline=Deadline(after=timedelta(days=1), then=UNDO)),
            ),
        ),
        "state given_back: its deadline undoes return, which can't be: it took back what was done before",
    ),
    # names
    "process name": (replace(LEAVE, name="Leave!"), "a process name is lower case words joined by _"),
    "process name of a route": (replace(LEAVE, name="cases"), "the name stands for the API's own addresses"),
    "state name": (
        replace(LEAVE, states=(*STATES, replace(ELSEWHERE, name="else where"))),
        "state 'else where': names are lower case words joined by _",
    ),
    "state twice": (replace(LEAVE, states=(*STATES, STATES[0])), "state draft is declared twice"),
    "transition name": (
        with_transition("return", name="Return"),
        "transition 'Return': names are lower case words joined by _",
    ),
    "transition twice": (
        replace(LEAVE, transitions=(*LEAVE.transitions, RETURN)),
        "transition return is declared twice",
    ),
    "role name": (
        replace(LEAVE, roles=(*LEAVE.roles, Role("the boss", "Boss"))),
        "role 'the boss': names are lower case words joined by _",
    ),
    "role twice": (replace(LEAVE, roles=(*LEAVE.roles, LEAVE.roles[0])), "role clerk is declared twice"),
    "role of the engine": (
        replace(LEAVE, roles=(*LEAVE.roles, Role("operator", "Mine"))),
        "role operator is the engine's own",
    ),
    "transition like an override": (
        with_transition("return", name="undo"),
        "transition undo has the name of an override",
    ),
    "transition like a claim": (
        with_transition("return", name="claim"),
        "transition claim has the name of what State(claimable_by=...) declares",
    ),
    "unknown source": (
        with_transition("return", source=frozenset({"booked", "nowhere"})),
        "transition return names the unknown state nowhere",
    ),
    "unknown target": (with_transition("return", to="nowhere"), "transition return names the unknown state nowhere"),
    "unknown pending": (
        with_transition("approve", pending="nowhere"),
        "transition approve names the unknown state nowhere",
    ),
    "unknown undone": (
        with_transition("approve", undone="nowhere"),
        "transition approve names the unknown state nowhere",
    ),
    "unknown force_cancel": (
        replace(LEAVE, force_cancel=ForceCancel(pending="cancelling", to="nowhere")),
        "force_cancel names the unknown state nowhere",
    ),
    "no opening": (
        replace(LEAVE, transitions=LEAVE.transitions[1:]),
        "exactly one transition opens a case (has no source), here: none",
    ),
    "two openings": (
        with_transition("return", source=frozenset()),
        "exactly one transition opens a case (has no source), here: open, return",
    ),
    # transitions
    "nobody may": (with_transition("return", roles=frozenset()), "transition return: nobody may take it (no roles)"),
    "unknown role": (with_transition("return", roles=frozenset({"boss"})), "transition return: unknown role boss"),
    "four eyes": (
        with_transition("approve", four_eyes=frozenset({"close"})),
        "transition approve: four_eyes names the unknown transition close",
    ),
    "leads nowhere": (with_transition("return", to=()), "transition return: leads nowhere"),
    "leads to a pending state": (
        with_transition("return", to="booking"),
        "transition return: leads to booking, which is a pending state",
    ),
    "steps without pending": (
        with_transition("approve", pending=None),
        "transition approve: has steps but no pending state to be in while they run",
    ),
    "supersedes without pending": (
        with_transition("cancel", pending=None),
        "transition cancel: supersedes work, so it needs a pending state to be in while that is offset",
    ),
    "pending without work": (
        with_transition("return", pending="cancelling"),
        "transition return: has the pending state cancelling but nothing to do in it",
    ),
    "undecided": (
        with_transition("return", to=("cancelled", "draft")),
        "transition return: has several targets but no step to decide between them",
    ),
    "opening with steps": (
        with_transition("open", pending="booking", steps=(BOOK,)),
        "transition open: opens the case with steps, so it must say which state an undo leads to",
    ),
    "undone pending": (
        with_transition("approve", undone="cancelling"),
        "transition approve: an undo would lead to cancelling, which is a pending state",
    ),
    "revises from nothing": (
        with_transition("return", revise=lambda leave, _nothing: leave),
        "transition return: revises the subject but asks for no input",
    ),
    "force_cancel's pending state is a target": (
        replace(LEAVE, force_cancel=ForceCancel(pending="booked", to="cancelled")),
        "force_cancel: booked is a target, not a pending state",
    ),
    "force_cancel not final": (
        replace(LEAVE, force_cancel=ForceCancel(pending="cancelling", to="draft")),
        "force_cancel: draft is not final",
    ),
    # steps
    "owner": (replace(LEAVE, owner="nobody"), "owner nobody is not one of its teams"),
    "step twice": (with_transition("approve", steps=(BOOK, BOOK)), "transition approve: step book stands twice"),
    "two steps of one name": (
        with_transition("cancel", steps=(replace(BOOK, title="Another"),)),
        "step book: two different steps have this name",
    ),
    "step name": (with_step(name="Book"), "step Book: names are lower case words joined by _"),
    "step owner": (with_step(owner="nobody"), "step book: owner nobody is not one of the process's teams"),
    "skip roles": (with_step(skip_roles=frozenset({"boss"})), "step book: unknown role boss may skip it"),
    "undo of the impossible": (
        with_step(undo=IMPOSSIBLE, exhausted="undo"),
        "step book: exhausted means undo, but it can't be undone",
    ),
    "made": (
        with_step(makes=Made("Certificate", "application/pdf")),
        "step book: makes Certificate, and its result has no sha256 and size to find it by",
    ),
    "made without a hash": (
        with_step(makes=Made("Certificate", "application/pdf"), result=Named),
        "step book: makes Certificate, and its sha256 takes what is no hash (no pattern ^[0-9a-f]{64}$)",
    ),
    "partner": (with_step(partner="The Calendar"), "step book: partner 'The Calendar' is not a name"),
    # states
    "waits on nobody known": (
        with_state("draft", waiting_on="boss"),
        "state draft: waits on the unknown role boss",
    ),
    "pending and waiting": (
        with_state("booking", waiting_on="clerk"),
        "state booking: is pending, so it can be neither final nor waiting on somebody",
    ),
    "pending and final": (
        with_state("booking", final=True),
        "state booking: is pending, so it can be neither final nor waiting on somebody",
    ),
    "no way out": (
        replace(LEAVE, transitions=LEAVE.transitions[:-1]),
        "state booked: nobody can leave it, and it is not final",
    ),
    "final and waiting": (
        with_state("cancelled", waiting_on="clerk"),
        "state cancelled: is final, so nobody can owe a move there",
    ),
    "final with a deadline": (
        with_deadline(Escalate("chief"), state="cancelled"),
        "state cancelled: is final, so nobody can owe a move there",
    ),
    "deadline in the past": (
        with_deadline(Escalate("chief"), after=timedelta(0)),
        "state draft: its deadline is not in the future",
    ),
    "escalates to nobody": (
        with_deadline(Escalate("boss")),
        "state draft: its deadline escalates to the unknown role boss",
    ),
    "escalates what nobody owes": (
        with_deadline(Escalate("chief"), state="booked"),
        "state booked: its deadline escalates, but the state waits on nobody",
    ),
    "takes nothing": (with_deadline(Take("forget")), "state draft: its deadline takes the unknown transition forget"),
    "takes what does not start here": (
        with_deadline(Take("return")),
        "state draft: its deadline takes return, which does not start here",
    ),
    "takes what asks": (
        replace(
            with_deadline(Take("cancel")),
            transitions=(OPEN, APPROVE, replace(CANCEL, input=Grounds), RETURN),
        ),
        "state draft: its deadline takes cancel, which needs input that nobody gives",
    ),
    # claims
    "claimable while work runs": (
        with_state("booking", claimable_by=CHIEF),
        "state booking: is pending, so nobody works on a case there who could claim it",
    ),
    "claimable at the end": (
        with_state("cancelled", claimable_by=CLERK),
        "state cancelled: is final, so nobody works on a case there who could claim it",
    ),
    "claimable by a stranger": (
        with_state("draft", claimable_by=frozenset({"boss"})),
        "state draft: unknown role boss may claim a case there",
    ),
    "claimable by who can do nothing": (
        with_state("booked", claimable_by=CHIEF),
        "state booked: chief may claim a case there, but take no transition from it",
    ),
    # confirmations
    "confirmed by a subject that it changes": (
        with_transition("return", confirmation=LONG, input=Grounds, revise=lambda leave, _grounds: leave),
        "transition return: its confirmation looks at the subject, which it revises itself",
    ),
    "left out by a subject": (
        with_step(skip_confirmation=LONG),
        "step book: its confirmation looks at the subject, which only a transition's may",
    ),
    "undone by a subject": (
        replace(LEAVE, confirmations={"undo": LONG}),
        "override undo: its confirmation looks at the subject, which only a transition's may",
    ),
    "confirmed by none": (
        with_transition("return", confirmation=replace(TWO, by=0)),
        "transition return: a confirmation by 0 people is none",
    ),
    "confirmed by nobody": (
        with_step(skip_confirmation=replace(TWO, roles=frozenset())),
        "step book: nobody may confirm it (no roles)",
    ),
    "confirmed by nobody known": (
        replace(LEAVE, confirmations={"undo": replace(TWO, roles=frozenset({"chief", "boss"}))}),
        "override undo: unknown role boss may confirm it",
    ),
    "expired at once": (
        with_transition("return", confirmation=replace(TWO, expires=timedelta(0))),
        "transition return: a proposal stands for more than nothing and at most 366 days",
    ),
    "expires never": (
        with_transition("return", confirmation=replace(TWO, expires=timedelta.max)),
        "transition return: a proposal stands for more than nothing and at most 366 days",
    ),
    "confirmed opening": (
        with_transition("open", confirmation=TWO),
        "transition open: opens the case, so there is nothing yet to confirm it on",
    ),
    "confirmed pause": (
        replace(LEAVE, confirmations={"pause": TWO}),
        "override pause: is none that can wait for confirmation",
    ),
    "confirmed nonsense": (
        replace(LEAVE, confirmations={"fly": TWO}),
        "override fly: is none that can wait for confirmation",
    ),
    "deadline takes what is confirmed": (
        replace(
            with_deadline(Take("cancel")),
            transitions=(OPEN, APPROVE, replace(CANCEL, confirmation=TWO), RETURN),
        ),
        "state draft: its deadline takes cancel, which people must confirm",
    ),
    "given up without confirmation": (
        with_step(skip_confirmation=TWO, exhausted="proceed"),
        "step book: exhausted means going on without it, which people must confirm",
    ),
    "given up without the process's confirmation": (
        replace(with_step(exhausted="proceed"), confirmations={"skip": TWO}),
        "step book: exhausted means going on without it, which people must confirm",
    ),
    "undone without confirmation": (
        replace(with_step(exhausted="undo"), confirmations={"undo": TWO}),
        "step book: exhausted means undo, which people must confirm",
    ),
    "takes what stays": (
        replace(
            with_deadline(Take("cancel"), state="cancelling"),
            transitions=(OPEN, APPROVE, replace(CANCEL, source=CANCEL.source | {"cancelling"}), RETURN),
        ),
        "state cancelling: its deadline takes cancel, which would stay here",
    ),
    "undoes the opening": (
        with_deadline(UNDO),
        "state draft: its deadline undoes open, which can't be undone: it says not where to",
    ),
    "deadline undoes what is confirmed": (
        replace(with_deadline(UNDO, state="booking"), confirmations={"undo": TWO}),
        "state booking: its deadline undoes, which people must confirm",
    ),
    "blocks for a stranger": (
        with_deadline(Block("kitchen")),
        "state draft: its deadline blocks for kitchen, which is not one of the process's teams",
    ),
    "unreachable": (
        replace(
            LEAVE,
            states=(*STATES, ELSEWHERE),
            transitions=(*LEAVE.transitions, replace(RETURN, name="leave", source=frozenset({"elsewhere"}))),
        ),
        "state elsewhere: can't be reached",
    ),
}


class TestFaults:
    def test_a_sound_process_has_none(self):
        assert faults(LEAVE) == []

    @pytest.mark.parametrize("name", list(CATALOGUE))
    def test_the_processes_that_run_here_are_sound(self, name):
        assert faults(CATALOGUE[name]) == []

    @pytest.mark.parametrize("case", list(WRONG))
    def test_is_told_where_and_what(self, case):
        process, message = WRONG[case]
        assert f"{process.name}: {message}" in faults(process)

    @pytest.mark.parametrize(
        "case",
        sorted(set(WRONG) - {"pending and waiting", "undone pending", "force_cancel's pending state is a target"}),
    )
    def test_a_fault_is_told_once(self, case):
        process, message = WRONG[case]
        assert faults(process).count(f"{process.name}: {message}") == 1

    def test_a_name_that_leads_nowhere_is_told_before_what_depends_on_it(self):
        broken = with_transition("return", to="nowhere", roles=frozenset())
        assert faults(broken) == ["leave: transition return names the unknown state nowhere"]

    def test_all_faults_are_told_together(self):
        broken = replace(with_step(owner="nobody", partner="!"), owner="nobody")
        assert len(faults(broken)) == 3

    def test_whatever_people_can_wait_for_may_need_confirmation(self):
        declared = with_transition("approve", confirmation=TWO, steps=(replace(BOOK, skip_confirmation=TWO),))
        overrides = ("retry", "skip", "mark_done", "undo", "replay", "force_cancel")
        assert faults(replace(declared, confirmations=dict.fromkeys(overrides, TWO))) == []

    def test_an_undo_need_not_be_declared_where_there_is_none(self):
        assert faults(with_step(undo=NONE_NEEDED, exhausted="undo")) == []
        assert faults(with_step(undo=IMPOSSIBLE)) == []

    @pytest.mark.parametrize("then", [UNDO, BLOCK, Block("it"), Escalate("chief"), Take("cancel")], ids=str)
    def test_a_pending_state_may_have_a_deadline_of_any_kind(self, then):
        assert faults(with_deadline(then, state="booking")) == []

    @pytest.mark.parametrize("then", [UNDO, BLOCK], ids=str)
    def test_a_state_where_nobody_owes_a_move_may_be_undone_or_blocked(self, then):
        assert faults(with_deadline(then, state="booked")) == []

    def test_what_was_done_before_may_be_undone_on_the_way(self):
        assert faults(UNDOING) == []

    @pytest.mark.parametrize("then", [UNDO, BLOCK], ids=str)
    def test_while_it_is_undone_a_deadline_may_pass(self, then):
        overdue = Deadline(after=timedelta(days=1), then=then)
        states = tuple(replace(s, deadline=overdue) if s.name == "returning" else s for s in UNDOING.states)
        assert faults(replace(UNDOING, states=states)) == []

    def test_what_only_force_cancel_takes_back_has_no_deadline(self):
        process = replace(
            with_deadline(BLOCK, state="cancelling"),
            transitions=(OPEN, APPROVE, replace(CANCEL, pending="booking"), RETURN),
        )
        assert (
            "leave: state cancelling: its deadline can't act: only what force_cancel takes back is under way there"
            in (faults(process))
        )

    def test_a_deadline_may_take_a_transition_whose_input_has_defaults(self):
        class Optional(Strict):
            note: str = ""

        process = with_deadline(Take("cancel"))
        transitions = tuple(replace(t, input=Optional) if t.name == "cancel" else t for t in process.transitions)
        assert faults(replace(process, transitions=transitions)) == []


LOOK = Step("look", "Look at it", partner="checker", result=Verdict, undo=NONE_NEEDED, each=True)
FORM = DocumentKind("form", "Form", roles=CLERK, states=frozenset({"draft"}))


def with_documents(*kinds: DocumentKind, look: Step[Verdict] = LOOK, told: bool = True) -> Process:
    steps = (look, BOOK) if told else (BOOK,)
    transitions = (OPEN, replace(APPROVE, steps=steps), CANCEL, RETURN)
    return replace(LEAVE, transitions=transitions, documents=Documents(kinds=kinds or (FORM,), checked_by=look))


class TestDocuments:
    def test_sound_ones_have_no_faults(self):
        assert faults(with_documents()) == []

    @pytest.mark.parametrize(
        ("process", "fault"),
        [
            (with_documents(told=False), "documents: look, which looks at them, is a step of no transition"),
            (
                with_documents(look=replace(LOOK, each=False)),
                "documents: look looks at each of them and changes nothing: it is `each` and needs no undo",
            ),
            (
                with_documents(look=replace(LOOK, undo="Forget it")),
                "documents: look looks at each of them and changes nothing: it is `each` and needs no undo",
            ),
            (with_documents(FORM, FORM), "document form: declared twice"),
            (with_documents(replace(FORM, name="The form")), "document The form: not a name"),
            (with_documents(replace(FORM, roles=frozenset({"pope"}))), "document form: nobody has the role pope"),
            (
                with_documents(replace(FORM, states=frozenset({"booking"}))),
                "document form: booking is no state at rest",
            ),
            (with_documents(replace(FORM, roles=frozenset())), "document form: nobody could ever add one"),
            (
                replace(with_documents(), documents=None),
                "step look: told for each of several, and there are no documents to tell it for",
            ),
        ],
    )
    def test_others_are_refused(self, process, fault):
        assert f"leave: {fault}" in faults(process)


class TestGroups:
    @pytest.mark.parametrize(
        ("confirmation", "fault"),
        [
            (
                Confirmation(by=1, roles=CHIEF, groups=CLERK),
                "transition approve: clerk must be among those who confirm it, and may not",
            ),
            (
                Confirmation(by=1, roles=CHIEF | CLERK, groups=CHIEF | CLERK),
                "transition approve: 1 people can't be of 2 groups",
            ),
        ],
    )
    def test_each_must_be_able_to_be_there(self, confirmation, fault):
        transitions = (OPEN, replace(APPROVE, confirmation=confirmation), CANCEL, RETURN)
        assert f"leave: {fault}" in faults(replace(LEAVE, transitions=transitions))


class TestCatalogue:
    def test_raises_with_every_fault_of_every_process(self):
        with pytest.raises(DeclarationInvalid) as invalid:
            Catalogue([with_step(owner="nobody"), replace(LEAVE, name="other", owner="nobody")])
        assert invalid.value.faults == (
            "leave: step book: owner nobody is not one of the process's teams",
            "other: owner nobody is not one of its teams",
            "other: step book: owner nobody is not one of the process's teams",
        )

    def test_refuses_two_processes_of_one_name(self):
        with pytest.raises(DeclarationInvalid, match="leave: declared twice"):
            Catalogue([LEAVE, LEAVE])

    def test_is_a_mapping_by_name(self):
        catalogue = Catalogue([LEAVE, replace(LEAVE, name="sick_leave")])
        assert (list(catalogue), len(catalogue), catalogue["sick_leave"].path) == (
            ["leave", "sick_leave"],
            2,
            "sick-leave",
        )
