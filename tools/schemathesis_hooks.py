"""What schemathesis knows about the API beyond openapi.json, in its own environment.

Stripe refuses nearly everything that it generates, and nearly no user that it generates has a
customer. So some of the requests that are to be accepted have few fields, and are about the same
few users. Those that are to be refused are sent as they were generated.
"""

from __future__ import annotations

import json
import random
from typing import Any

import schemathesis
from schemathesis import Case, GenerationMode, HookContext
from schemathesis.generation.meta import TestPhase

USERS = [f"user-{number}" for number in range(8)]
NEEDED = ("user_id", "billing_email")


@schemathesis.hook("before_call")  # type: ignore[untyped-decorator]
def get_further(_: HookContext, case: Case, __: dict[str, Any]) -> None:
    """Change a request that is to be accepted, the same one always in the same way."""
    if case.meta is None or case.meta.generation.mode is not GenerationMode.POSITIVE:
        return
    if case.meta.phase.name not in (TestPhase.FUZZING, TestPhase.STATEFUL):
        return
    made_up = json.dumps([case.path_parameters, case.body], default=str)
    chance = random.Random(made_up)  # noqa: S311
    if isinstance(case.body, dict) and chance.random() < 0.75:
        optional = [name for name in case.body if name not in NEEDED]
        sent = {*NEEDED, *chance.sample(optional, min(len(optional), chance.randrange(3)))}
        case.body = {name: value for name, value in case.body.items() if name in sent}
        case.body["billing_email"] = "jenny@example.com"
        if chance.random() < 0.75:
            case.body["user_id"] = chance.choice(USERS)
    # A chain of requests is about whom its first one was about.
    elif (
        case.path_parameters
        and case.meta.phase.name is TestPhase.FUZZING
        and chance.random() < 0.75
    ):
        case.path_parameters = {"user_id": chance.choice(USERS)}
