"""The table's stream: applies new events, and those that were ahead of a new customer."""

from typing import Any

from aws_lambda_powertools.utilities.batch import (
    BatchProcessor,
    EventType,
    process_partial_response,
)
from aws_lambda_powertools.utilities.batch.types import PartialItemFailureResponse
from aws_lambda_powertools.utilities.data_classes.dynamo_db_stream_event import DynamoDBRecord
from aws_lambda_powertools.utilities.typing import LambdaContext

from stripe_integrations.actions import StripeEvent
from stripe_integrations.context import current
from stripe_integrations.observability import logger, told

processor = BatchProcessor(EventType.DynamoDBStreams, raise_on_entire_batch_failure=False)


def apply(record: DynamoDBRecord) -> None:
    pk, sk = (record["dynamodb"]["Keys"][name]["S"] for name in ("pk", "sk"))
    try:
        StripeEvent.wake(pk, sk)
    except Exception as error:
        logger.warning("failed", extra={"item": pk if sk == "EVENT" else sk, **told(error)})
        raise


@logger.inject_lambda_context
def handler(event: dict[str, Any], context: LambdaContext) -> PartialItemFailureResponse:
    current().begin_invocation(context.get_remaining_time_in_millis())
    return process_partial_response(event, apply, processor, context)
