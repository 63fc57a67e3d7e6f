"""The table's stream: applies new events, and those that were ahead of a new customer."""

from typing import Any

from aws_lambda_powertools.utilities.batch.types import (
    PartialItemFailureResponse,
    PartialItemFailures,
)

from stripe_integrations.actions.stripe_event import StreamRecord, StripeEvent
from stripe_integrations.entrypoints.invocation import invocation_handler
from stripe_integrations.models.fields import value_at
from stripe_integrations.observability import error_log_fields, logger


@invocation_handler
def handler(event: dict[str, Any]) -> PartialItemFailureResponse:
    records = event.get("Records")
    numbers = {}
    for record in records if isinstance(records, list) else []:
        item = _item(record)
        if item is None:
            # What it speaks of stands in the table all the same: the schedule finds it there.
            logger.error("unreadable record")
        else:
            numbers[item] = str(value_at(record, "dynamodb", "SequenceNumber"))
    failed: list[PartialItemFailures] = []
    for item, error in StripeEvent.process_stream_records(numbers):
        logger.warning("failed", extra={"item": item.subject, **error_log_fields(error)})
        failed.append({"itemIdentifier": numbers[item]})
    return {"batchItemFailures": failed}


def _item(record: object) -> StreamRecord | None:
    pk = value_at(record, "dynamodb", "Keys", "pk", "S")
    sk = value_at(record, "dynamodb", "Keys", "sk", "S")
    customer_id = value_at(record, "dynamodb", "NewImage", "customer_id", "S")
    if not isinstance(pk, str) or not isinstance(sk, str):
        return None
    return StreamRecord(pk, sk, customer_id if isinstance(customer_id, str) else None)
