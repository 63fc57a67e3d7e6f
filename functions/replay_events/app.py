"""Invoked by an operator: applies events again, one, all failed ones, or a range of time."""

from dataclasses import asdict
from typing import Any

from stripe_integrations.actions import StripeEvent
from stripe_integrations.actions.events import replay  # noqa: F401 - imported in the INIT
from stripe_integrations.entrypoints.invocation import invocation_handler
from stripe_integrations.errors import InvalidFieldError
from stripe_integrations.models.fields import is_text
from stripe_integrations.observability import add_fields


@invocation_handler
def handler(event: dict[str, Any]) -> dict[str, Any]:
    match event:
        case {"event_id": stripe_id} if is_text(stripe_id):
            result = StripeEvent.replay(stripe_id)
        case {"failed": True}:
            result = StripeEvent.replay_failed(event.get("resume_from"))
        case {"created_from": int(earliest), "created_to": int(latest)} if earliest <= latest:
            result = StripeEvent.replay_created_between(earliest, latest, event.get("resume_from"))
        case _:
            raise InvalidFieldError(
                "event", "must have event_id, failed: true, or created_from before created_to"
            )
    add_fields(replayed=result.replayed)
    return asdict(result)
