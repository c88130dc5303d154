"""Claims: somebody takes a case in hand, so that others leave it alone. One title for each, and what both take."""

from typing import Annotated

from pydantic import ConfigDict, Field

from caseward.process import Strict


class ClaimInput(Strict):
    """Nothing that has to be said."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"reason": "I know the customer"}]})

    reason: Annotated[str | None, Field(min_length=3, max_length=2000, description="Why; stands in the timeline.")] = (
        None
    )


CLAIM_TITLES = {"claim": "Claim it", "unclaim": "Give it back"}
CLAIM_WORDS = {
    "claim": "The case is yours until it leaves its state: what your role does here, others can't.",
    "unclaim": "Anybody may claim it again. Operators, and whom the deadline calls, may end the claims of others.",
}
