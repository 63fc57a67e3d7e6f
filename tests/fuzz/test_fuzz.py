"""A few hundred cases of the fuzz, and the proof that its judge finds what is broken."""

from __future__ import annotations

import json
import random
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from typing import Any
from unittest import mock

import pytest
from moto.core.models import botocore_stubber

from stripe_integrations.entrypoints import http, webhook_signature
from stripe_integrations.entrypoints.http import Request
from stripe_integrations.errors import InvocationFailedError
from stripe_integrations.observability import logger
from tests.fuzz.blocks import Stage, play_block, played, staged
from tests.fuzz.mangling import mangled, nested

CASES = range(400)

Json = dict[str, Any]
BrokenBy = Callable[..., str]


@pytest.fixture(scope="module")
def stage(aws: None) -> Iterator[Stage]:
    # moto would answer every call too, though nobody would hear it.
    with mock.patch.object(botocore_stubber, "enabled", False), staged() as stage:
        yield stage


@pytest.fixture
def broken_by(stage: Stage) -> BrokenBy:
    """What the judge says of a product in which something is otherwise."""

    def play(place: str, change: Callable[..., Any], cases: int = 150) -> str:
        with mock.patch(place, change):
            report = play_block(stage, 1, range(cases))
        return "\n".join(text for failure in report.failures for text in failure.what)

    return play


def test_whatever_is_sent_nothing_breaks(stage: Stage) -> None:
    report = play_block(stage, 2, CASES)
    assert report.failures == []
    assert report.counts.total() == len(CASES)
    functions = {what.split()[0] for what in report.counts}
    assert len(functions) == 9


def test_a_case_follows_from_its_number_and_its_seed(stage: Stage) -> None:
    def told(seed: int) -> list[str]:
        return [repr((case, outcome.answer)) for _, case, outcome in played(stage, seed, range(60))]

    assert told(3) == told(3)
    assert told(3) != told(4)


def test_what_is_mangled_shares_nothing_with_what_was_valid() -> None:
    valid = {"a": [{"b": 1}, nested("x", 3)], "c": {"d": "e"}}
    before = json.dumps(valid)
    seen = Counter(repr(mangled(valid, random.Random(seed))) for seed in range(300))
    assert json.dumps(valid) == before
    assert len(seen) > 200


# ---- the judge


def raising(*_: Any, **__: Any) -> Any:
    raise KeyError("nothing")


def test_it_finds_a_handler_that_raises(broken_by: BrokenBy) -> None:
    assert "raised KeyError" in broken_by("functions.get_customer.app.handler", raising)


def test_it_finds_an_answer_of_500(broken_by: BrokenBy) -> None:
    found = broken_by("stripe_integrations.actions.StripeCustomer.get", raising)
    assert "answered 500 internal-error" in found


def test_it_finds_a_refusal_that_is_none(broken_by: BrokenBy) -> None:
    def refusing(*_: Any) -> Any:
        raise InvocationFailedError("KeyError")

    assert "raised InvocationFailedError" in (
        broken_by("functions.replay_events.app.StripeEvent.replay_failed", refusing)
    )


@pytest.mark.parametrize("accepts", [True, False])
def test_it_finds_another_verdict_than_stripes(broken_by: BrokenBy, accepts: bool) -> None:
    def verify(*given: Any) -> None:
        if not accepts:
            usual(given[0] + b" ", *given[1:])

    usual = webhook_signature.verify
    found = broken_by("stripe_integrations.entrypoints.webhook_signature.verify", verify)
    assert ("accepted a forgery" in found) is accepts
    assert f"stripe.Webhook {'refuses' if accepts else 'accepts'} this signature" in found


def test_it_finds_a_mark_in_the_log(broken_by: BrokenBy) -> None:
    def telling(request: Request) -> Json:
        logger.debug("told", extra={"body": request.body.decode("latin-1")})
        return usual(request)

    usual = Request.json
    assert "put out: e-mail of ann" in (
        broken_by("stripe_integrations.entrypoints.http.Request.json", telling)
    )


def test_it_finds_that_a_token_opens_more_than_its_own(broken_by: BrokenBy) -> None:
    def anybody(_: Request, user_id: object) -> object:
        return user_id

    found = broken_by(
        "stripe_integrations.entrypoints.http.Request.authorized_user_id", anybody, 400
    )
    assert "got another user's customer" in found
    assert "got what is bob's" in found
    assert "changed USER#" in found


def test_it_finds_what_was_refused_and_yet_changed_something(
    stage: Stage, broken_by: BrokenBy
) -> None:
    def changing(self: Request) -> Mapping[str, Any]:
        body = usual(self)
        database = stage.world.database
        item = {"pk": {"S": f"X#{len(self.body)}"}, "sk": {"S": "X"}, "record_type": {"S": "X"}}
        database.request("PutItem", {"TableName": "customers", "Item": item})
        return body

    usual = Request.json
    found = broken_by("stripe_integrations.entrypoints.http.Request.json", changing)
    assert "refused, and changed" in found


def test_it_finds_an_event_that_was_answered_and_not_kept(broken_by: BrokenBy) -> None:
    def forgetting(event: Any) -> Any:
        return event

    place = "stripe_integrations.models.Event.store"
    assert "answered 200 for an event that is not stored" in broken_by(place, forgetting)


def test_it_finds_a_problem_without_its_details(broken_by: BrokenBy) -> None:
    def bare(status: int, slug: str, *_: str, **__: str) -> Any:
        return usual(status, slug, "")

    usual = http._problem
    assert "no problem details" in broken_by("stripe_integrations.entrypoints.http._problem", bare)
