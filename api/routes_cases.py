"""Cases, operations and the outbox, for reading."""

from datetime import timedelta
from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Path, Query, Response
from pydantic import BaseModel, ConfigDict, Field

from api.answers import etag
from api.deps import CurrentActor, OutboxOperator, OutboxReader, Session, Wired
from api.responses import READING, READING_CASE, problems
from caseward.cases import queries
from caseward.cases.commands import requeue_message
from caseward.documents import CaseDocument, CaseList, MessageDocument, MessageList, OperationDocument, Timeline
from caseward.situation import ConditionName

router = APIRouter(prefix="/v1")

Text = Annotated[str | None, Field(max_length=200, pattern=r"^[^\x00]*$")]
Limit = Annotated[int, Field(ge=1, le=queries.MAX_PAGE)]
Number = Annotated[int, Field(ge=0, le=2**31 - 1)]
LOOK_EVERY = timedelta(seconds=5)  # the net below the notices


class CaseQuery(BaseModel):
    """What a list of cases may ask for; everything given must fit."""

    model_config = ConfigDict(extra="forbid")

    process: Text = None
    state: Text = None
    condition: ConditionName | None = None
    recovery_owner: Text = None
    waiting_on: Text = None
    business_key: Text = None
    q: Annotated[Text, Field(description="A business key's beginning, or the id of a case, an operation or an effect")]
    q = None
    cursor: Annotated[Text, Field(description="From `next`")] = None
    limit: Limit = queries.PAGE
