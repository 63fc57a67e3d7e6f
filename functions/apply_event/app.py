"""The table's stream: applies new events, and those that arrived before a new customer."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from stripe_integrations.actions import StreamRecord, StripeEvent
from stripe_integrations.entrypoints.invocation import invocation_handler
from stripe_integrations.models import Event
from stripe_integrations.models.fields import is_text, value_at
from stripe_integrations.observability import error_log_fields, logger

if TYPE_CHECKING:
    from aws_lambda_powertools.utilities.batch.types import (
        PartialItemFailureResponse,
        PartialItemFailures,
    )


@invocation_handler
def handler(event: dict[str, Any]) -> PartialItemFailureResponse:
    records = event.get("Records")
    sequence_numbers = {}
    for record in records if isinstance(records, list) else []:
        parsed = _parse(record)
        if parsed is None:
            # Its item is in the table nevertheless: the schedule finds it there.
            logger.error("unreadable record")
        else:
            sequence_numbers[parsed] = str(value_at(record, "dynamodb", "SequenceNumber"))
    failed: list[PartialItemFailures] = []
    for parsed, error in StripeEvent.process_stream_records(sequence_numbers):
        logger.warning("failed", extra={"item": parsed.log_id, **error_log_fields(error)})
        failed.append({"itemIdentifier": sequence_numbers[parsed]})
    return {"batchItemFailures": failed}


def _parse(record: object) -> StreamRecord | None:
    pk = value_at(record, "dynamodb", "Keys", "pk", "S")
    sk = value_at(record, "dynamodb", "Keys", "sk", "S")
    image = value_at(record, "dynamodb", "NewImage")
    customer_id = value_at(image, "customer_id", "S")
    if not is_text(pk) or not is_text(sk):
        return None
    parsed = StreamRecord(
        pk,
        sk,
        customer_id if is_text(customer_id) else None,
        lacks_children=sk != Event.SORT_KEY and value_at(image, "listings") is None,
    )
    return parsed if parsed.is_event or parsed.new_customer_id else None
