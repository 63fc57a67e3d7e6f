"""The table's stream: applies new events, and those that were ahead of a new customer."""

from typing import Any

from aws_lambda_powertools.utilities.batch.types import (
    PartialItemFailureResponse,
    PartialItemFailures,
)
from aws_lambda_powertools.utilities.typing import LambdaContext

from stripe_integrations.actions.events import NewItem, StripeEvent
from stripe_integrations.context import current
from stripe_integrations.observability import logger, told


@logger.inject_lambda_context
def handler(event: dict[str, Any], context: LambdaContext) -> PartialItemFailureResponse:
    current().begin_invocation(context.get_remaining_time_in_millis())
    numbers = {_item(record): record["dynamodb"]["SequenceNumber"] for record in event["Records"]}
    failed: list[PartialItemFailures] = []
    for item, error in StripeEvent.wake(numbers):
        logger.warning("failed", extra={"item": item.subject, **told(error)})
        failed.append({"itemIdentifier": numbers[item]})
    return {"batchItemFailures": failed}


def _item(record: dict[str, Any]) -> NewItem:
    change = record["dynamodb"]
    keys = change["Keys"]
    customer_id = change["NewImage"].get("customer_id", {}).get("S")
    return NewItem(keys["pk"]["S"], keys["sk"]["S"], customer_id)
