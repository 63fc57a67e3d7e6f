"""The cases: what a function is called with, made of something valid and spoiled by chance."""

from __future__ import annotations

import base64
import json
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache
from typing import Any

from local.stripe_double.webhooks import sign
from simulation.chance import chance
from simulation.deployment import TABLE_NAME
from stripe_integrations.actions.events.handlers import applied_event_types
from tests.fuzz.mangling import (
    TEXTS,
    copied,
    junk,
    mangled,
    mangled_bytes,
    mangled_headers,
    mangled_text,
)
from tests.marked import customer_fields, mark, user_id
from tests.marked_world import OLD_SECRET, SECRET, MarkedWorld
from tools.template import ROOT

Json = dict[str, Any]

ADMIN_SCOPE = "stripe-customers/admin"
PEOPLE = ("ann", "bob")
SENDER = "sender"
"""Whose the marks are in what a caller of the API sends."""

_JWT = ("requestContext", "authorizer", "jwt")
_NEAR_ADMIN = (
    "stripe-customers/admin2",
    "stripe-customers/Admin",
    "stripe-customers",
    "admin",
    "openid stripe-customers/adm",
    "xstripe-customers/admin openid",
    "stripe-customers/admin,openid",
    "[stripe-customers/admins]",
)
_SECRETS = (
    f"{OLD_SECRET} {SECRET}",
    f"{OLD_SECRET} {SECRET}",
    SECRET,
    f" \n{SECRET}\t",
    f"{OLD_SECRET}\n{SECRET}\nwhsec_é",
)
_FORGERS = ("whsec_forged", "whsec_", "", " ", SECRET[:-1], SECRET.upper(), SECRET + " ")
_OTHER_KINDS = ("price.created", "invoice.paid", "customer.tax_id.created", "x" * 255, "", "é.*")
_AGES = (0, 0, 0, 0, 0, 0, 1, 299, 300, 301, -1, -299, -301, 86_400, -86_400, 10**9, -(10**12))


@dataclass
class Case:
    """One call of one function.

    Parameters
    ----------
    function : str
        The function's folder.
    kind : str
        What was spoiled, for the split at the end.
    event : object
        What the function is called with.
    claims : object
        The claims of the caller's token, as API Gateway has verified them; None without a token.
    has_token : bool
        Whether the caller came with a token.
    is_forged : bool
        Whether the signature was made without the endpoint's secrets, or for another body.
    webhook_secret : str
        What is kept as the endpoint's signing secrets.
    """

    function: str
    kind: str
    event: Any
    claims: Any = None
    has_token: bool = False
    is_forged: bool = False
    webhook_secret: str = _SECRETS[0]
    remaining_milliseconds: int = field(default=120_000)


@cache
def example(function: str) -> Json:
    """The project's own example event of a function."""
    parsed: Json = json.loads((ROOT / "events" / f"{function}.json").read_text())
    return parsed


def make(world: MarkedWorld, seed: int, number: int) -> Case:
    """The case of this number, in the world as it stands."""
    drawn = chance("fuzz", seed, number)
    (maker,) = drawn.choices(list(_MAKERS), weights=list(_MAKERS.values()))
    return maker(world, drawn)


# ---- the API


def _create(_: MarkedWorld, drawn: random.Random) -> Case:
    person = _somebody(drawn)
    fields = customer_fields(SENDER)
    kept = drawn.sample(sorted(fields), drawn.randrange(4))
    body: Any = {"user_id": person, "billing_email": fields["billing_email"]}
    body |= {name: fields[name] for name in kept if name != "invoice_prefix"}
    event = copied(example("create_customer"))
    kind = drawn.choice((*("valid", "fields", "fields", "bytes", "event") * 3, "any"))
    if kind == "fields":
        body = mangled(body | _odd_fields(drawn), drawn)
    text = json.dumps(body).encode()
    _carry(event, mangled_bytes(text, drawn) if kind == "bytes" else text, drawn)
    return _of_api("create_customer", kind, event, drawn, person)


def _odd_fields(drawn: random.Random) -> Json:
    """A field that is known, or none, with a value that may be anything."""
    name = drawn.choice(
        (
            "address",
            "balance",
            "currency",
            "default_source",
            "delinquent",
            "invoice_prefix",
            "invoice_settings",
            "livemode",
            "metadata",
            "preferred_locales",
            "shipping",
            "tax_exempt",
            "user",
            "self",
            "fields",
        )
    )
    return {name: drawn.choice((junk(drawn), {drawn.choice(TEXTS): junk(drawn)}, [junk(drawn)]))}


def _of_path(function: str) -> Callable[[MarkedWorld, random.Random], Case]:
    def make_case(_: MarkedWorld, drawn: random.Random) -> Case:
        person = _somebody(drawn)
        event = copied(example(function))
        event["pathParameters"] = {"user_id": person}
        event["rawPath"] = event["rawPath"].replace("user-1", person)
        kind = drawn.choice(("valid", "valid", "path", "path", "event", "event", "any"))
        if kind == "path":
            event["pathParameters"] = drawn.choice(
                (
                    None,
                    junk(drawn),
                    {"user_id": junk(drawn)},
                    {"user_id": mangled_text(person, drawn)},
                    {"USER_ID": person},
                    {"user_id": [person]},
                )
            )
        return _of_api(function, kind, event, drawn, person)

    return make_case


def _of_api(function: str, kind: str, event: Json, drawn: random.Random, person: str) -> Case:
    if kind == "event" or drawn.random() < 0.15:
        event["headers"] = mangled_headers(event["headers"], drawn)
    case = Case(function, kind, event, remaining_milliseconds=29_000)
    if drawn.random() < 0.6:
        case.has_token = True
        case.claims = _claims(drawn, person)
        event["requestContext"]["authorizer"] = {"jwt": {"claims": case.claims, "scopes": None}}
    if kind == "event":
        case.event = mangled(event, drawn, spared=[(*_JWT, "claims")] if case.has_token else [])
    elif kind == "any":
        case.event, case.has_token = junk(drawn), False
    return case


def _claims(drawn: random.Random, person: str) -> Any:
    """A token's claims: of the one who is asked about, of somebody else, or of nobody."""
    claims: Any = {
        "sub": drawn.choice((person, *map(user_id, PEOPLE))),
        "iss": "https://issuer",
        "email": f"{mark('e-mail in the token')}@example.com",
        "name": mark("name in the token"),
    }
    match drawn.randrange(8):
        case 0:
            claims["scope"] = drawn.choice(_NEAR_ADMIN)
        case 1:
            claims["scope"] = ADMIN_SCOPE
        case 2:
            claims["scp"] = drawn.choice((f"[openid {ADMIN_SCOPE}]", [ADMIN_SCOPE], junk(drawn)))
        case 3:
            claims["sub"] = drawn.choice((junk(drawn), mangled_text(claims["sub"], drawn)))
        case 4:
            claims = drawn.choice((junk(drawn), {}, mangled(claims, drawn)))
    return claims


def _somebody(drawn: random.Random) -> str:
    known = drawn.random() < 0.8
    return user_id(drawn.choice(PEOPLE)) if known else f"user-{drawn.randrange(50)}"


def _carry(event: Json, body: bytes, drawn: random.Random) -> None:
    """Put a body into an event the way AWS does, or with a flag that is wrong."""
    is_encoded = drawn.random() < 0.2
    if is_encoded:
        event["body"] = base64.b64encode(body).decode()
    else:
        # Not every byte can come this way; those that can't come as what JSON makes of them.
        event["body"] = body.decode("utf-8", drawn.choice(("replace", "surrogateescape")))
    event["isBase64Encoded"] = is_encoded
    if drawn.random() < 0.05:
        event["isBase64Encoded"] = drawn.choice((not is_encoded, None, "false", 0, []))


# ---- the webhook


def _webhook(world: MarkedWorld, drawn: random.Random) -> Case:
    payload = _payload(world, drawn)
    kind = drawn.choice(
        (*("valid", "payload", "payload", "bytes", "signature", "event") * 4, "any")
    )
    if kind == "payload":
        payload = mangled(payload, drawn)
    body = json.dumps(payload, indent=2, ensure_ascii=drawn.random() < 0.5).encode(
        "utf-8", "surrogatepass"
    )
    if kind == "bytes":
        body = mangled_bytes(body, drawn)
    secrets = drawn.choice(_SECRETS)
    moment = world.time - (drawn.choice(_AGES) if kind == "signature" else 0)
    header: Any = sign(body, drawn.choice(secrets.split()), moment)
    is_forged = False
    if kind == "signature":
        header, sent, is_forged = _forged(body, header, moment, drawn)
    else:
        sent = body
    event = copied(example("link_customer"))
    event["headers"]["stripe-signature"] = header
    if header is None:
        del event["headers"]["stripe-signature"]
    _carry(event, sent, drawn)
    if kind == "event":
        event["headers"] = mangled_headers(event["headers"], drawn)
        event = mangled(event, drawn)
    elif kind == "any":
        event = junk(drawn)
    return Case(
        "link_customer",
        kind,
        event,
        is_forged=is_forged,
        webhook_secret=secrets,
        remaining_milliseconds=10_000,
    )


def _forged(
    body: bytes, header: str, moment: float, drawn: random.Random
) -> tuple[Any, bytes, bool]:
    """A header, the body that is sent with it, and whether the two are surely a forgery."""
    stamp, _, signature = header.partition(",")
    scheme = drawn.choice(("v0", "V1", "v2"))
    later = int(moment) + drawn.choice((1, -1, 300))
    forgeries = (
        sign(body, drawn.choice(_FORGERS), moment),
        sign(body, drawn.choice(_FORGERS), moment),
        f"t={later},{signature}",
        f"{stamp},{signature.replace('v1', scheme)}",
        drawn.choice((None, "", "t=", "v1=", stamp, signature, junk(drawn))),
    )
    oddities = (
        header,
        f"{stamp},v1={'0' * 64},{signature},v1=é",
        f"{header},{header}",
        f"{header}, {stamp}",
        f" {header}",
        mangled_text(header, drawn),
        mangled_text(header, drawn),
    )
    if drawn.random() < 0.3:
        changed = mangled_bytes(body, drawn)
        return header, changed, changed != body
    if drawn.random() < 0.5:
        return drawn.choice(forgeries), body, True
    return drawn.choice(oddities), body, False


def _payload(world: MarkedWorld, drawn: random.Random) -> Json:
    """An event that Stripe could send, of what is there."""
    known = world.stripe.account.events
    payload: Json = copied(known[drawn.choice(list(known))])
    if drawn.random() < 0.7:
        payload["id"] = f"evt_{drawn.getrandbits(60):x}"
        payload["created"] = int(world.time) + drawn.choice((0, 0, -1, -100, 5))
    if drawn.random() < 0.4:
        payload["type"] = drawn.choice((*applied_event_types(), *_OTHER_KINDS))
    return payload


# ---- the stream, the schedule, calls by hand


def _stream(world: MarkedWorld, drawn: random.Random) -> Case:
    changes = [
        record
        for record in world.database.stream(TABLE_NAME).records[-80:]
        if record["eventName"] == "INSERT"
        and record["dynamodb"]["NewImage"]["record_type"]["S"] in ("Customer", "Event")
    ]
    if not changes:
        return _reconcile(world, drawn)
    records = [copied(drawn.choice(changes)) for _ in range(drawn.choice((1, 1, 2, 10)))]
    kind = drawn.choice(("valid", "records", "records", "event"))
    event: Any = {"Records": records}
    if kind == "records":
        event = {"Records": mangled(records, drawn)}
    elif kind == "event":
        event = drawn.choice((mangled(event, drawn), {}, {"Records": junk(drawn)}, junk(drawn)))
    return Case("apply_event", kind, event)


def _replay(world: MarkedWorld, drawn: random.Random) -> Case:
    known = drawn.choice(list(world.stripe.account.events))
    since = int(world.time) - drawn.randrange(200)
    in_range = {"created_from": since, "created_to": since + 2}
    event: Any = drawn.choice(
        (
            {"event_id": known},
            {"failed": True},
            in_range,
            {**in_range, "resume_from": {"pk": {"S": f"EVENT#{known}"}, "sk": {"S": "EVENT"}}},
            {**in_range, "resume_from": junk(drawn)},
            {"event_id": junk(drawn)},
        )
    )
    return _by_hand("replay_events", event, drawn)


def _rebuild(world: MarkedWorld, drawn: random.Random) -> Case:
    known = drawn.choice(list(world.stripe.account.customers))
    event = drawn.choice(
        (
            {},
            {"created_from": int(world.time) - drawn.choice((0, 60, 10**6))},
            {"resume_from": known},
            {"created_from": junk(drawn), "resume_from": junk(drawn)},
        )
    )
    return _by_hand("rebuild_customers", event, drawn)


def _reconcile(_: MarkedWorld, drawn: random.Random) -> Case:
    return _by_hand("reconcile_events", example("reconcile_events"), drawn)


def _by_hand(function: str, event: Any, drawn: random.Random) -> Case:
    kind = drawn.choice(("valid", "event", "event", "any"))
    if kind == "event":
        event = mangled(event, drawn)
    elif kind == "any":
        event = junk(drawn)
    return Case(function, kind, event)


_MAKERS: dict[Callable[[MarkedWorld, random.Random], Case], float] = {
    _create: 24,
    _of_path("get_customer"): 11,
    _of_path("sync_customer"): 8,
    _of_path("soft_delete_customer"): 4,
    _webhook: 38,
    _stream: 9,
    _replay: 4,
    _rebuild: 1,
    _reconcile: 1,
}
