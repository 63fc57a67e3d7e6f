"""Schemathesis hooks: what openapi.json does not describe. Runs in schemathesis's environment.

Stripe refuses almost all generated values, and almost no generated user has a customer. So some of
the valid (positive) requests are reduced to a few fields and use the same few user ids. Invalid
(negative) requests are sent as generated.
"""

from __future__ import annotations

import json
import random
from typing import Any, cast

import schemathesis
from schemathesis import Case, CheckContext, GenerationMode, HookContext, Response
from schemathesis.generation.meta import TestPhase
from schemathesis.specs.openapi.checks import ensure_resource_availability

USERS = [f"user-{number}" for number in range(8)]
REQUIRED = ("user_id", "billing_email", "stripe_id")


@schemathesis.hook("before_call")  # type: ignore[untyped-decorator]
def simplify(_: HookContext, case: Case, __: dict[str, Any]) -> None:
    """Simplify a positive request; the same request is always changed in the same way."""
    if case.meta is None or case.meta.generation.mode is not GenerationMode.POSITIVE:
        return
    if case.meta.phase.name not in (TestPhase.FUZZING, TestPhase.STATEFUL):
        return
    generated = json.dumps([case.path_parameters, case.query, case.body], default=str)
    chance = random.Random(generated)  # noqa: S311
    if isinstance(case.body, dict) and chance.random() < 0.75:
        optional = [name for name in case.body if name not in REQUIRED]
        sent = {*REQUIRED, *chance.sample(optional, min(len(optional), chance.randrange(3)))}
        case.body = {name: value for name, value in case.body.items() if name in sent}
        if case.body.get("billing_email"):
            case.body["billing_email"] = "jenny@example.com"
        if "user_id" in case.body and chance.random() < 0.75:
            case.body["user_id"] = chance.choice(USERS)
    # A stateful sequence keeps the user of its first request.
    if case.meta.phase.name is TestPhase.FUZZING and chance.random() < 0.75:
        parameters = {"user_id": chance.choice(USERS)}
        if case.path_parameters:
            case.path_parameters = parameters
        elif case.query:
            case.query = parameters


@schemathesis.check  # type: ignore[untyped-decorator]
def created_customer_is_available(
    context: CheckContext, response: Response, case: Case
) -> bool | None:
    """Check that a created customer is available, by its user's paths.

    Schemathesis's own check identifies a resource by its path only, and reports the 404 of
    ``GET /customers?user_id=`` after ``DELETE /customers/{user_id}``, and that of a
    ``PUT /customers/{user_id}`` whose body names a customer that an earlier sequence deleted.
    """
    recorder = context.internals.recorder
    if recorder is None:
        return cast("bool | None", ensure_resource_availability(context, response, case))
    named = case.body.get("stripe_id") if isinstance(case.body, dict) else None
    is_created_here = named is None
    for earlier in recorder.find_all_cases():
        result = recorder.find_response(case_id=earlier.id)
        if earlier.id == case.id or result is None:
            continue
        deletes = earlier.operation.method.upper() == "DELETE" and result.status_code == 204
        if deletes and _user_id(earlier) == _user_id(case):
            return None
        if result.status_code == 201 and json.loads(result.content)["stripe_id"] == named:
            is_created_here = True
    if not is_created_here:
        return None
    return cast("bool | None", ensure_resource_availability(context, response, case))


def _user_id(case: Case) -> Any:
    return (case.path_parameters or case.query or {}).get("user_id")
