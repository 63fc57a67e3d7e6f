"""Schemathesis hooks: what openapi.json does not describe. Runs in schemathesis's environment.

Stripe refuses almost all generated values, and almost no generated user has a customer. So some of
the valid (positive) requests are reduced to a few fields and use the same few user ids. Invalid
(negative) requests are sent as generated.
"""

from __future__ import annotations

import json
import random
from typing import Any

import schemathesis
from schemathesis import Case, GenerationMode, HookContext
from schemathesis.generation.meta import TestPhase

USERS = [f"user-{number}" for number in range(8)]
REQUIRED = ("user_id", "billing_email")


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
        case.body["billing_email"] = "jenny@example.com"
        if chance.random() < 0.75:
            case.body["user_id"] = chance.choice(USERS)
    # A stateful sequence keeps the user of its first request.
    elif case.meta.phase.name is TestPhase.FUZZING and chance.random() < 0.75:
        parameters = {"user_id": chance.choice(USERS)}
        if case.path_parameters:
            case.path_parameters = parameters
        else:
            case.query = parameters
