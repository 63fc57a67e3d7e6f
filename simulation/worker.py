"""The backend's worker: a process that calls the Python API, for what no function serves."""

from __future__ import annotations

from typing import Any

from stripe_integrations.actions import StripeCustomer, User
from stripe_integrations.entrypoints.http import problem
from stripe_integrations.errors import StripeIntegrationsError

Json = dict[str, Any]

RELEASE = "release_customer"
TIMEOUT = 60.0
"""Seconds after which a worker is killed."""


def release_customer(event: Json, _: object) -> Json:
    """Release the customer of the user that the event names; returns a status as HTTP has it."""
    try:
        StripeCustomer.release(User(event["user_id"]))
    except StripeIntegrationsError as error:
        refusal = problem(error)
        return {"statusCode": refusal.status, "body": refusal.body}
    return {"statusCode": 204}
