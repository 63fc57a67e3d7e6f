"""What the functions are invoked with: an event that is valid, or was until it was mangled."""

from __future__ import annotations

import base64
import json
import re
from copy import deepcopy
from dataclasses import dataclass
from functools import cache
from typing import Any
from urllib.parse import quote

from hypothesis import strategies as st

from local.stripe_double.webhooks import sign
from simulation.deployment import TABLE_NAME
from stripe_integrations.actions.events.event_types import applied_event_types
from stripe_integrations.config import ExistingCustomers
from stripe_integrations.models import Customer
from stripe_integrations.models.fields import fields_of
from tests.fuzz.strategies import JUNK, RAW, mangled, mostly, spliced_bytes, spliced_text, weighted
from tests.marked import customer_fields, mark, user_id
from tests.marked_world import OLD_SECRET, SECRET, MarkedWorld
from tests.world import Json
from tools.template import ROOT

ADMIN_SCOPE = "stripe-customers/admin"
USERS = ("ann", "bob")
"""Who has a customer from the beginning."""
SENDER = "sender"
"""Whose the marks are in the bodies of requests."""
_ODD_FIELDS = [
    "user",
    "customer",
    "idempotency_key",
    "self",
    "fields",
    "created_at",
    *fields_of(Customer),
]
_NEAR_ADMIN = (
    "stripe-customers/admin2",
    "stripe-customers/Admin",
    "stripe-customers",
    "xstripe-customers/admin openid",
    "stripe-customers/admin,openid",
    "[stripe-customers/admins]",
)
_SECRETS = (
    f"{OLD_SECRET} {SECRET}",
    SECRET,
    f" \n{SECRET}\t",
    f"{OLD_SECRET}\n{SECRET}\nwhsec_other",
)
_FORGERS = ("whsec_forged", "whsec_", "", SECRET[:-1], SECRET.upper(), SECRET + " ")
_AGES = (0, 1, -1, 299, 300, 301, -299, -301, 86_400, 10**9, -(10**12))
_OTHER_KINDS = ("price.created", "invoice.paid", "customer.tax_id.created", "x" * 255, "")


@dataclass
class Invocation:
    """One call of one function.

    Parameters
    ----------
    function : str
        The function's folder.
    event : object
        What the function is invoked with.
    token : mapping or None
        The caller's JWT as API Gateway has verified it, in the event too.
    webhook_secret : str
        What is stored as the endpoint's signing secrets.
    existing_customers : ExistingCustomers
        What a create does about customers that exist on Stripe.
    """

    function: str
    event: Any
    token: Json | None = None
    webhook_secret: str = _SECRETS[0]
    existing_customers: ExistingCustomers = ExistingCustomers.IGNORE


def invocations(world: MarkedWorld) -> st.SearchStrategy[Invocation]:
    """Invocations of all functions, in the world as it is now."""
    return weighted(
        (11, _with_path("get_customer")),
        (5, _to_me_route()),
        (24, _create()),
        (9, _create_beside_existing()),
        (10, _update()),
        (8, _with_path("sync_customer")),
        (4, _with_path("soft_delete_customer")),
        (4, _adopt(world)),
        (38, _webhook(world)),
        (9, _stream(world)),
        (4, _by_hand("replay_events", _replays(world))),
        (1, _by_hand("erase_customer", _erasures(world))),
        (2, _by_hand("reconcile_events", st.just({}))),
        (6, _by_hand("walk_account", _walks())),
    )


@cache
def example(function: str) -> Json:
    """The project's own example event of a function."""
    parsed: Json = json.loads((ROOT / "events" / f"{function}.json").read_text())
    return parsed


# ---- the API

_USER_IDS = weighted(
    (4, st.sampled_from([user_id(name) for name in USERS])),
    (1, st.integers(0, 50).map(lambda number: f"user-{number}")),
)
_ODD_CLAIMS: st.SearchStrategy[Json] = weighted(
    (4, st.just({})),
    (1, st.fixed_dictionaries({"scope": st.sampled_from(_NEAR_ADMIN)})),
    (1, st.just({"scope": ADMIN_SCOPE})),
    (
        1,
        st.fixed_dictionaries({"scp": st.just([ADMIN_SCOPE]) | st.just(f"[{ADMIN_SCOPE}]") | JUNK}),
    ),
    (1, st.fixed_dictionaries({"sub": JUNK | st.sampled_from(USERS).flatmap(spliced_text)})),
)


@st.composite
def _create(draw: st.DrawFn) -> Invocation:
    user = draw(_USER_IDS)
    fields = customer_fields(SENDER)
    names = draw(st.lists(st.sampled_from(sorted({*fields} - {"invoice_prefix"})), max_size=3))
    body: Any = {"user_id": user, "billing_email": fields["billing_email"]}
    body |= {name: fields[name] for name in names}
    odd_fields = st.dictionaries(st.sampled_from(_ODD_FIELDS), JUNK, max_size=1)
    body = draw(mostly(body | draw(mostly({}, odd_fields)), mangled(body), JUNK))
    event = {**deepcopy(example("create_customer")), **draw(_carried(_json_bytes(body)))}
    return draw(_of_api("create_customer", event, user))


@st.composite
def _create_beside_existing(draw: st.DrawFn) -> Invocation:
    """A create that checks, for a user without a customer, with the e-mail of one on Stripe."""
    user = f"user-{draw(st.integers(51, 99))}"
    email = customer_fields(SENDER)["billing_email"]
    body: Any = {"user_id": user, "billing_email": email}
    if draw(st.integers(0, 2)) == 2:
        body["allow_existing"] = draw(mostly(True, JUNK))
    body = draw(mostly(body, mangled(body)))
    event = {**deepcopy(example("create_customer")), **draw(_carried(_json_bytes(body)))}
    token = None
    if draw(st.booleans()):
        token = {"claims": {"sub": user, **draw(_ODD_CLAIMS)}, "scopes": None}
        event["requestContext"]["authorizer"] = {"jwt": token}
    existing = ExistingCustomers.CHECK
    return Invocation("create_customer", event, token, existing_customers=existing)


@st.composite
def _update(draw: st.DrawFn) -> Invocation:
    fields = customer_fields(SENDER)
    names = draw(st.lists(st.sampled_from(sorted({*fields} - {"invoice_prefix"})), max_size=3))
    body: Any = {name: draw(st.sampled_from((fields[name], None))) for name in names}
    odd_fields = st.dictionaries(st.sampled_from(_ODD_FIELDS), JUNK, max_size=1)
    body = draw(mostly(body | draw(mostly({}, odd_fields)), mangled(body), JUNK))
    event = deepcopy(example("update_customer"))
    key = draw(mostly(event["headers"].pop("idempotency-key"), st.just(None), JUNK))
    if key is not None:
        event["headers"]["idempotency-key"] = key
    return draw(_with_path("update_customer", {**event, **draw(_carried(_json_bytes(body)))}))


@st.composite
def _with_path(draw: st.DrawFn, function: str, given: Json | None = None) -> Invocation:
    user = draw(_USER_IDS)
    event = deepcopy(given or example(function))
    ids = st.fixed_dictionaries({"user_id": JUNK | spliced_text(user) | st.just([user])})
    if draw(st.booleans()):
        event["pathParameters"] = draw(mostly({"user_id": user}, ids, JUNK))
        event["rawPath"] = event["rawPath"].replace("user-1", user)
    else:
        del event["pathParameters"]
        event["rawPath"] = event["rawPath"].replace("/user-1", "")
        query = f"user_id={quote(user)}"
        event["rawQueryString"] = draw(mostly(query, spliced_text(query), JUNK))
    return draw(_of_api(function, event, user))


@st.composite
def _adopt(draw: st.DrawFn, world: MarkedWorld) -> Invocation:
    """An adoption of a customer that Stripe has, of a user's own or another's, or of none."""
    known = [customer["id"] for customer in world.stripe_customers()]
    stripe_id = draw(st.sampled_from(known or ["cus_unknown"]))
    body: Any = {"stripe_id": draw(mostly(stripe_id, JUNK)), "take_over": draw(mostly(True, JUNK))}
    body = draw(mostly(body, mangled(body), JUNK))
    event = {**deepcopy(example("adopt_customer")), **draw(_carried(_json_bytes(body)))}
    return draw(_with_path("adopt_customer", event))


@st.composite
def _to_me_route(draw: st.DrawFn) -> Invocation:
    """A request to a route `/me`, sometimes with a user id where none is accepted."""
    user = draw(_USER_IDS)
    functions = ("get_customer", "create_customer", "update_customer", "sync_customer")
    function = draw(st.sampled_from(functions))
    tail = "/sync" if function == "sync_customer" else ""
    event = deepcopy(example(function))
    method = event["requestContext"]["http"]["method"]
    event |= {"routeKey": f"{method} /me{tail}", "rawPath": f"/me{tail}", "rawQueryString": ""}
    event.pop("pathParameters", None)
    fields = {"billing_email": customer_fields(SENDER)["billing_email"]}
    named = {**fields, "user_id": user}
    if function in ("create_customer", "update_customer"):
        body = draw(mostly(fields, st.just(named), mangled(fields)))
        event |= {"body": json.dumps(body), "isBase64Encoded": False}
    elif draw(st.integers(0, 4)) == 4:
        event |= {"body": json.dumps(named), "rawQueryString": f"user_id={quote(user)}"}
    return draw(_of_api(function, event, user))


@st.composite
def _of_api(draw: st.DrawFn, function: str, event: Json, user: str) -> Invocation:
    event = draw(_mangled_event(event))
    context = event.get("requestContext") if isinstance(event, dict) else None
    if not isinstance(context, dict) or draw(st.integers(0, 4)) < 2:
        return Invocation(function, event)
    token = {"claims": draw(_claims(user)), "scopes": None}
    context["authorizer"] = {"jwt": token}
    return Invocation(function, event, token)


@st.composite
def _mangled_event(draw: st.DrawFn, event: Json) -> Any:
    """An event of an API or a Function URL; most are as they were."""
    event["headers"] = draw(mostly(event["headers"], mangled(event["headers"])))
    return draw(mostly(event, mangled(event), JUNK))


@st.composite
def _claims(draw: st.DrawFn, user: str) -> Any:
    """A token's claims: the user's in question, another user's, an administrator's, or none."""
    claims = {
        "sub": draw(st.sampled_from((user, *map(user_id, USERS)))),
        "email": f"{mark('e-mail in the token')}@example.com",
        "name": mark("name in the token"),
        **draw(_ODD_CLAIMS),
    }
    return draw(mostly(claims, mangled(claims), JUNK))


def _json_bytes(value: Any) -> bytes:
    text = json.dumps(value, indent=2, ensure_ascii=False).encode("utf-8", "surrogatepass")
    return re.sub(rb'"%s([^"]*)"' % RAW.encode(), rb"\1", text)


@st.composite
def _carried(draw: st.DrawFn, body: bytes) -> Json:
    """A body as AWS puts it into an event, now and then spoiled, or with a flag that is wrong."""
    body = draw(mostly(body, spliced_bytes(body)))
    is_encoded = draw(st.integers(0, 4)) == 4
    # Not every byte can be carried as text: what can't becomes what JSON's parsers make of it.
    text = body.decode("utf-8", draw(st.sampled_from(("replace", "surrogateescape"))))
    flags = st.sampled_from((*[is_encoded] * 20, not is_encoded, None, "false", 0))
    return {
        "body": base64.b64encode(body).decode() if is_encoded else text,
        "isBase64Encoded": draw(flags),
    }


# ---- the webhook


@st.composite
def _webhook(draw: st.DrawFn, world: MarkedWorld) -> Invocation:
    payload = draw(_payload(world))
    body = _json_bytes(draw(mostly(payload, mangled(payload), JUNK)))
    body = draw(mostly(body, spliced_bytes(body)))
    secrets = draw(st.sampled_from(_SECRETS))
    secret = draw(st.sampled_from(secrets.split()))
    event = deepcopy(example("link_customer"))
    signature = sign(body, secret, world.time)
    odd = _signature(body, secret, world.time)
    event["headers"]["stripe-signature"] = draw(weighted((2, st.just(signature)), (1, odd)))
    event |= draw(_carried(body))
    return Invocation("link_customer", draw(_mangled_event(event)), webhook_secret=secrets)


@st.composite
def _signature(draw: st.DrawFn, body: bytes, secret: str, now: float) -> Any:
    """A header that is old, forged, or odd in a way that Stripe's library accepts or refuses."""
    moment = now - draw(st.sampled_from(_AGES))
    forger = draw(weighted((3, st.just(secret)), (1, st.sampled_from(_FORGERS))))
    header = sign(body, forger, moment)
    stamp, _, signature = header.partition(",")
    odd = st.sampled_from(
        (
            *(None, "", "t=", "v1=", stamp, signature),
            *(f"t={int(moment) + 1},{signature}", f"{header},{header}", f" {header}"),
            *(f"{stamp},v1={'0' * 64},{signature},v1=é", f"{header}, {stamp}", f"{header},t=1"),
            *(f"{stamp},{signature.replace('v1', scheme)}" for scheme in ("v0", "V1", "v2")),
        )
    )
    return draw(weighted((3, st.just(header)), (2, odd), (2, spliced_text(header)), (1, JUNK)))


@st.composite
def _payload(draw: st.DrawFn, world: MarkedWorld) -> Json:
    """An event that Stripe could send, of what it has."""
    events = world.stripe.account.events
    payload: Json = deepcopy(events[draw(st.sampled_from(list(events)))])
    if draw(st.booleans()):
        payload["id"] = f"evt_{draw(st.integers(0, 2**30)):x}"
        payload["created"] = int(world.time) + draw(st.sampled_from((0, 0, -1, -100, 5)))
    payload["type"] = draw(
        mostly(payload["type"], st.sampled_from((*applied_event_types(), *_OTHER_KINDS)))
    )
    return payload


# ---- the stream, the schedule, invocations by hand


@st.composite
def _stream(draw: st.DrawFn, world: MarkedWorld) -> Invocation:
    changes = [
        record
        for record in world.database.stream(TABLE_NAME).records[-80:]
        if record["eventName"] == "INSERT"
        and record["dynamodb"]["NewImage"]["record_type"]["S"] in ("Customer", "Event")
    ]
    records = draw(st.lists(st.sampled_from(changes[::-1]), min_size=1, max_size=4))
    event = {"Records": draw(mostly(records, mangled(records), JUNK))}
    return Invocation("apply_event", draw(mostly(event, JUNK)))


def _replays(world: MarkedWorld) -> st.SearchStrategy[Json]:
    now = int(world.time)
    known = st.sampled_from(list(world.stripe.account.events))
    place = known.map(lambda key: {"pk": {"S": f"EVENT#{key}"}, "sk": {"S": "EVENT"}})
    since = st.integers(now - 200, now)
    ranges = st.fixed_dictionaries(
        {"created_from": since, "created_to": since}, optional={"resume_from": place | JUNK}
    )
    ids = st.fixed_dictionaries({"event_id": known | known.flatmap(spliced_text) | JUNK})
    return st.one_of(ids, st.just({"failed": True}), ranges)


def _erasures(world: MarkedWorld) -> st.SearchStrategy[Json]:
    known = st.sampled_from(list(world.stripe.account.customers))
    users = st.sampled_from([user_id(name) for name in USERS])
    of_user = st.fixed_dictionaries({"user_id": users | JUNK})
    of_customer = st.fixed_dictionaries({"stripe_id": known | known.flatmap(spliced_text) | JUNK})
    deletion = st.fixed_dictionaries({}, optional={"delete_on_stripe": st.booleans() | JUNK})
    return st.builds(lambda given, more: {**given, **more}, of_user | of_customer, deletion)


def _walks() -> st.SearchStrategy[Json]:
    runs = st.sampled_from(("first", "second", "third"))
    policies = st.sampled_from(("all", "with-default-or-subscription", "none"))
    kinds = st.sampled_from(("backfill", "metadata", "rebuild"))
    options = st.fixed_dictionaries({}, optional={"payment_methods": policies, "kind": kinds})
    asked = {"action": st.sampled_from(("status", "finish", "stop", "resume")), "run_id": runs}
    return st.one_of(
        st.fixed_dictionaries({"action": st.just("start"), "run_id": runs, "options": options}),
        st.fixed_dictionaries({"action": st.just("work"), "run_id": runs, "worker": st.just("1")}),
        st.fixed_dictionaries(asked),
    )


@st.composite
def _by_hand(draw: st.DrawFn, function: str, events: st.SearchStrategy[Json]) -> Invocation:
    event = draw(events)
    return Invocation(function, draw(mostly(event, mangled(event), JUNK)))
