"""openapi.json describes what the functions accept and return, and nothing else."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import replace
from typing import Any
from urllib.parse import quote

import pytest
from botocore.exceptions import ReadTimeoutError
from hypothesis import given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator, FormatChecker
from openapi_spec_validator import OpenAPIV31SpecValidator

import functions.adopt_customer.app as adopt_customer
import functions.create_customer.app as create_customer
import functions.get_customer.app as get_customer
import functions.soft_delete_customer.app as soft_delete_customer
import functions.sync_customer.app as sync_customer
import functions.update_customer.app as update_customer
from stripe_integrations.actions import StripeCustomer
from stripe_integrations.actions.customers import request
from stripe_integrations.actions.customers.snapshot import TOKEN_KEY
from stripe_integrations.adapters import aws, secrets
from stripe_integrations.config import Authorizer, ExistingCustomers
from stripe_integrations.context import _of_process, use
from stripe_integrations.entrypoints.http import MAX_API_BODY_BYTES
from stripe_integrations.errors import InvalidFieldError
from stripe_integrations.models import Card, Customer, CustomerClaim, Owner, Pointer, Subscription
from stripe_integrations.models.fields import StripeField, fields_of
from stripe_integrations.models.table import Record
from tests.roles import acting_freely
from tests.world import EMAIL, Json, World
from tools import openapi
from tools.lambda_events import api_event
from tools.template import of_type

DOCUMENT = openapi.document()
FUNCTIONS = {
    "adopt_customer": adopt_customer,
    "create_customer": create_customer,
    "get_customer": get_customer,
    "update_customer": update_customer,
    "sync_customer": sync_customer,
    "soft_delete_customer": soft_delete_customer,
}
BODY: Json = {"user_id": "u-1", "billing_email": "jane@example.com"}
FIELDS = [
    pytest.param(field, id=f"{model.__name__}.{name}")
    for model in (Customer, Card, Subscription)
    for name, field in fields_of(model).items()
    if not field.private
]
SETTABLE = {name: field for name, field in fields_of(Customer).items() if field.settable}


def validator(schema: Json) -> Draft202012Validator:
    """A validator of a schema of the document, formats included."""
    whole = {**schema, "components": DOCUMENT["components"]}
    return Draft202012Validator(whole, format_checker=FormatChecker())


REPEATABLE = settings(derandomize=True, database=None, deadline=None, max_examples=50)
REQUEST = validator(DOCUMENT["components"]["schemas"]["CustomerToCreate"])
UPDATE = validator(DOCUMENT["components"]["schemas"]["CustomerToUpdate"])
RECORD = Customer(stripe_id="cus_1", metadata={"plan": "pro"})
ADOPTION = validator(DOCUMENT["components"]["schemas"]["CustomerToAdopt"])


def call(world: World, function: str, user_id: str = "u-1", **event: Any) -> Json:
    """Call a route, and check that its response is one that the document promises."""
    (route,) = (route for route in openapi.ROUTES if route.operation == function)
    names_user = route.operation == "create_customer"
    if route.takes_body:
        own = {name: value for name, value in BODY.items() if name != "user_id"}
        body = {"stripe_id": existing_customer(world)} if route.method == "PUT" else own
        event = {"body": json.dumps({**body, "user_id": user_id} if names_user else body), **event}
    if route.is_by_token:
        event = {"claims": {"sub": user_id}, **event}
        sent = api_event(route.method, route.path, **event)
        response = world.call(FUNCTIONS[function.removesuffix(openapi.BY_TOKEN)], sent)
        check(function, response)
        return response
    path = route.path.replace("{user_id}", user_id)
    if "{" in route.path:
        sent = api_event(route.method, path, user_id, **event)
    else:
        query = "" if names_user else f"user_id={quote(user_id, safe='')}"
        sent = api_event(route.method, path, query=query, **event)
    response = world.call(FUNCTIONS[function.removesuffix(openapi.BY_QUERY)], sent)
    check(function, response)
    return response


def existing_customer(world: World) -> str:
    """The id of the customer that exists on Stripe alone."""
    customers = world.stripe.account.customers.values()
    return next((each["id"] for each in customers if each.get("name") == "Existing"), "cus_1")


def operation_of(function: str) -> Json:
    operation: Json
    (operation,) = (
        operation
        for operations in DOCUMENT["paths"].values()
        for operation in operations.values()
        if operation["operationId"] == function
    )
    return operation


def check(function: str, response: Json) -> None:
    promised = operation_of(function)["responses"][str(response["statusCode"])]
    media_type = response["headers"].get("content-type")
    assert (media_type in promised.get("content", {})) is ("body" in response)
    if "body" in response:
        validator(promised["content"][media_type]["schema"]).validate(response["json"])
    if "retry-after" in response["headers"]:
        retry_after = DOCUMENT["components"]["headers"]["RetryAfter"]["schema"]
        assert promised["headers"] == {"Retry-After": {"$ref": "#/components/headers/RetryAfter"}}
        validator(retry_after).validate(response["headers"]["retry-after"])


def slug(response: Json) -> str:
    """The end of a problem's type."""
    return openapi.slug_of(response["json"])


# ---- the document -----------------------------------------------------------------------------


def test_file_is_up_to_date() -> None:
    assert openapi.DOCUMENT.read_text() == openapi.text(), "it is stale: run `make openapi`"


def test_is_openapi_3_1() -> None:
    assert DOCUMENT["openapi"].startswith("3.1.")
    OpenAPIV31SpecValidator(json.loads(openapi.text())).validate()


def test_routes_are_the_templates() -> None:
    deployed = {
        route["Properties"]["RouteKey"]: name.removesuffix("Route")
        for name, route in of_type("AWS::ApiGatewayV2::Route").items()
        if name != "WebhookRoute"  # for Stripe alone
    }
    described = {
        f"{method.upper()} {path}": operation["operationId"].title().replace("_", "")
        for path, operations in DOCUMENT["paths"].items()
        for method, operation in operations.items()
    }
    assert described == deployed


def examples() -> Iterator[Any]:
    def found(node: object) -> Iterator[Any]:
        if isinstance(node, list):
            for entry in node:
                yield from found(entry)
        if isinstance(node, dict):
            for name in ("example", "examples"):
                if name in node and "schema" in node:
                    given = node[name].values() if name == "examples" else [{"value": node[name]}]
                    yield from ((node["schema"], example) for example in given)
            for entry in node.values():
                yield from found(entry)

    return found(DOCUMENT)


def test_examples_are_valid() -> None:
    shown = list(examples())
    assert len(shown) > 40
    for schema, example in shown:
        if "$ref" in example:
            example = DOCUMENT["components"]["examples"][example["$ref"].rpartition("/")[2]]  # noqa: PLW2901
        validator(schema).validate(example["value"])


# ---- responses -------------------------------------------------------------------------


def test_customer_with_children_is_as_described(world: World) -> None:
    stripe_id = call(world, "create_customer")["json"]["stripe_id"]
    assert call(world, "create_customer")["statusCode"] == 200
    world.request("POST", f"/v1/customers/{stripe_id}/sources", {"source": "tok_visa"})
    world.attach_card(stripe_id, "tok_mastercard")
    world.subscribe(stripe_id)

    shown = call(world, "sync_customer")["json"]

    assert call(world, "get_customer")["json"] == shown
    assert (len(shown["cards"]), len(shown["subscriptions"])) == (2, 1)
    schemas = DOCUMENT["components"]["schemas"]
    assert shown.keys() == set(schemas["Customer"]["required"])
    optional = {"tax_ids", "payment_methods", "entitlements"}
    assert set(schemas["Customer"]["properties"]) - shown.keys() == optional
    assert shown["cards"][0].keys() == schemas["Card"]["properties"].keys()
    assert shown["subscriptions"][0].keys() == schemas["Subscription"]["properties"].keys()
    assert call(world, "soft_delete_customer")["statusCode"] == 204


def test_deleted_customer_is_as_described(world: World) -> None:
    stripe_id = call(world, "create_customer")["json"]["stripe_id"]
    world.request("DELETE", f"/v1/customers/{stripe_id}")
    assert call(world, "sync_customer")["json"]["date_purged"]


Setting = Callable[[World, ExitStack], Json | None]
"""Makes a problem occur; what the request needs for it, where that matters."""


def refusing(code: str, operation: str = "", reasons: list[str] | None = None) -> Setting:
    def refuse(world: World, stack: ExitStack) -> None:
        stack.enter_context(world.failing_database(code, operation=operation, reasons=reasons))

    return refuse


def stripe_returning(status: int) -> Setting:
    return lambda world, stack: world.stripe.faults.fail_next(None, status=status)


def settings_of(**values: Any) -> Setting:
    def enter(world: World, stack: ExitStack) -> None:
        context = world.new_context()
        context.settings = replace(world.settings, **values)
        stack.enter_context(use(context))

    return enter


def forbidden(world: World, stack: ExitStack) -> Json:
    settings_of(api_authorizer=Authorizer.JWT)(world, stack)
    return {"claims": {"sub": ""}}


def no_table(world: World, stack: ExitStack) -> None:
    """A process that starts without its settings."""
    patch = stack.enter_context(pytest.MonkeyPatch.context())
    patch.delenv("TABLE_NAME", raising=False)
    patch.setattr("stripe_integrations.entrypoints.invocation.current", _of_process)


def broken(world: World, stack: ExitStack) -> None:
    def fail(*_: object) -> None:
        raise KeyError

    patch = stack.enter_context(pytest.MonkeyPatch.context())
    patch.setattr("stripe_integrations.entrypoints.caller.Caller.authorize_user", fail)
    patch.setattr("stripe_integrations.entrypoints.caller.Caller.own_user", fail)


def no_secret(world: World, stack: ExitStack) -> None:
    def out_of_reach(request: Any, **_: Any) -> None:
        raise ReadTimeoutError(endpoint_url=request.url)

    secrets.forget()
    aws.forget_clients()
    stack.callback(aws.forget_clients)
    events = aws.client("secretsmanager").meta.events
    events.register("before-send.secrets-manager", out_of_reach)
    settings_of(api_key_name="secretsmanager:stripe/api-key")(world, stack)


def other_mode(world: World, stack: ExitStack) -> None:
    """A key whose prefix does not determine the mode."""
    world.stripe.api_keys = {"sk_test_double"}
    world.stripe.account.livemode = True
    for customer in world.stripe.account.customers.values():
        customer["livemode"] = True


def newer_schema(world: World, stack: ExitStack) -> Json:
    client = Record.connection().client
    for image in world.images():
        newer = {**image, "schema_version": {"N": "99"}}
        client.put_item(TableName=world.settings.table_name, Item=newer)
    return {"user_id": "u-1"}


def nobody(world: World, stack: ExitStack) -> Json:
    world.request("DELETE", f"/v1/customers/{existing_customer(world)}")
    return {"user_id": "u-none"}


def being_created(world: World, stack: ExitStack) -> Json:
    CustomerClaim.acquire("u-claimed", {"stripe": {}, "local": {}})
    return {"user_id": "u-claimed"}


def of_another_user(world: World, stack: ExitStack) -> None:
    """Every customer is another user's, also the one that Stripe creates when its call returns."""

    def take_all() -> None:
        for customer in world.stripe_customers():
            Pointer.to(Owner("u-2", customer["id"])).save()

    take_all()
    world.stripe.faults.delay(1, match="POST /v1/customers")
    world.during_sleep = take_all


def of_another_deployment(world: World, stack: ExitStack) -> None:
    path = f"/v1/customers/{existing_customer(world)}"
    world.request("POST", path, {"metadata": {TOKEN_KEY: "shop-prod/1-a"}})


def erased(world: World, stack: ExitStack) -> None:
    """Every customer is erased, also the one that Stripe creates when its call returns."""

    def erase_all() -> None:
        world.during_sleep = lambda: None  # an erasure sleeps too
        with use(world.new_context()), acting_freely():
            for customer in world.stripe_customers():
                StripeCustomer.erase_stripe_customer(customer["id"])

    erase_all()
    world.stripe.faults.delay(1, match="POST /v1/customers")
    world.during_sleep = erase_all


def existing_on_stripe(world: World, stack: ExitStack) -> None:
    world.configure(existing_customers=ExistingCustomers.CHECK)
    world.request("POST", "/v1/customers", {"email": EMAIL})


PROBLEMS: dict[str, Setting] = {
    "customer-erased": erased,
    "customer-exists": existing_on_stripe,
    "take-over-required": of_another_deployment,
    "user-has-another-customer": lambda world, stack: {"user_id": "u-1"},
    "malformed-request": lambda world, stack: {"body": "{"},
    "forbidden": forbidden,
    "customer-not-found": nobody,
    "customer-being-created": being_created,
    "customer-of-another-user": of_another_user,
    "conflict": refusing(
        "TransactionCanceledException",
        "TransactWriteItems",
        ["ConditionalCheckFailed", *["None"] * 9],
    ),
    "request-too-large": lambda world, stack: {"body": " " * (MAX_API_BODY_BYTES + 1)},
    "unsupported-media-type": lambda world, stack: {"headers": {"content-type": "text/plain"}},
    "invalid-field": lambda world, stack: {"user_id": "u" * 501},
    "internal-error": broken,
    "misconfigured": no_table,
    "record-refused": refusing("ValidationException"),
    "records-not-stored": settings_of(stored_records=frozenset({"Card"})),
    "stripe-refused": stripe_returning(401),
    "wrong-mode": other_mode,
    "stripe-unavailable": stripe_returning(500),
    "database-unavailable": refusing("ProvisionedThroughputExceededException"),
    "secret-unavailable": no_secret,
    "newer-schema": newer_schema,
}


@pytest.mark.parametrize(
    ("function", "kind"),
    [
        pytest.param(route.operation, kind, id=f"{route.operation}-{kind}")
        for route in openapi.ROUTES
        for kind in sorted(
            {openapi.slug_of(openapi.example_problem(kind)) for kind in route.problems}
        )
    ],
)
def test_problem_of_route_is_as_described(world: World, function: str, kind: str) -> None:
    is_new = function.startswith(("create_customer", "adopt_customer"))
    asked: Json = {"user_id": "u-new"} if is_new else {}
    world.create()
    world.request("POST", "/v1/customers", {"name": "Existing"})
    with ExitStack() as stack:
        asked |= PROBLEMS[kind](world, stack) or {}
        response = call(world, function, **asked)
    assert slug(response) == kind
    assert response["json"]["title"]


@pytest.mark.exhaustive
@pytest.mark.parametrize("field", FIELDS)
@REPEATABLE
@given(value=st.data())
def test_value_from_stripe_is_returned_in_schema(
    field: StripeField[Any], value: st.DataObject
) -> None:
    found = field.from_stripe(value.draw(JSON))
    is_stored = found is not None or field.null
    if field.paths and is_stored:
        validator(field.response_schema).validate(field.to_json(found))


# ---- requests ----------------------------------------------------------------------------

SIMPLE = (
    st.none()
    | st.booleans()
    | st.integers(-(10**14), 10**14)
    | st.floats(allow_nan=False, allow_infinity=False).filter(lambda number: number % 1 != 0)
    | st.text(st.characters(codec="utf-8"), max_size=8)
    | st.sampled_from(["x" * 5000, "x" * 5001, 10**12, 10**12 + 1, -(10**12), -(10**12) - 1])
)
JSON = SIMPLE | st.recursive(
    SIMPLE,
    lambda nested: (
        st.lists(nested, max_size=3) | st.dictionaries(st.text(max_size=5), nested, max_size=3)
    ),
    max_leaves=6,
)
"""Values of a body, but for those about which JSON Schema differs from the API: it takes 1.0 for a
whole number, and does not know how deep a value is nested, or half surrogate pairs."""


@pytest.mark.exhaustive
@pytest.mark.parametrize("name", SETTABLE)
@REPEATABLE
@given(value=JSON)
def test_field_takes_its_schema(name: str, value: Any) -> None:
    body = {**BODY, name: value}
    assert REQUEST.is_valid(body) is is_taken(body), value


def is_taken(body: Json) -> bool:
    """Return whether the fields of a body pass before Stripe, or anything else, is called."""
    fields = {name: value for name, value in body.items() if name not in BODY}
    try:
        request.create_request(body["billing_email"], fields)
    except InvalidFieldError:
        return False
    return True


@pytest.mark.exhaustive
@pytest.mark.parametrize("name", ["billing_email", *SETTABLE])
@REPEATABLE
@given(value=JSON)
def test_field_of_update_takes_its_schema(name: str, value: Any) -> None:
    fields = {name: value}
    try:
        request.update_request(RECORD, fields)
    except InvalidFieldError:
        taken = False
    else:
        taken = True
    assert UPDATE.is_valid(fields) is taken, value


@pytest.mark.parametrize(
    ("fields", "taken"),
    [
        ({}, True),
        ({"billing_email": None}, True),
        ({"billing_email": ""}, False),
        ({"metadata": {"plan": None}}, True),
        ({"metadata": {"stripe_integrations_token": None}}, False),
        ({"preferred_locales": ["de"]}, True),
        ({"preferred_locales": []}, False),
        ({"invoice_prefix": ""}, False),
        ({"user_id": "u-1"}, False),
        ({"email": "jane@example.com"}, False),
        ({"idempotency_key": "k-1"}, False),
        *(
            ({name: None}, bool(field.param) and field.clearable)
            for name, field in SETTABLE.items()
        ),
        *(({name: True}, False) for name in fields_of(Customer) if name not in SETTABLE),
    ],
)
def test_update_takes_its_schema(world: World, fields: Json, taken: bool) -> None:
    world.create()
    response = call(world, "update_customer", body=json.dumps(fields))
    assert UPDATE.is_valid(fields) is taken
    assert response["statusCode"] == (200 if taken else 422)


@pytest.mark.parametrize("key", ["k", "k" * 200, "k" * 201, "a b", "", "ü"])
def test_idempotency_key_takes_its_schema(world: World, key: str) -> None:
    world.create()
    schema = validator(DOCUMENT["components"]["parameters"]["IdempotencyKey"]["schema"])
    response = call(world, "update_customer", headers={"idempotency-key": key})
    assert response["statusCode"] == (200 if schema.is_valid(key) else 422)


@pytest.mark.parametrize(
    ("changes", "taken"),
    [
        ({}, True),
        ({"user_id": "u" * 500}, True),
        ({"user_id": "\U0001f600" * 500}, True),
        ({"user_id": "u" * 501}, False),
        ({"user_id": ""}, False),
        ({"user_id": None}, False),
        ({"user_id": 7}, False),
        ({"user_id": {"u-1": "u-1"}}, False),
        ({"billing_email": ""}, False),
        ({"billing_email": " \t"}, False),
        ({"billing_email": None}, False),
        ({"billing_email": "a@" + "b" * 5000}, False),
        ({"email": "jane@example.com"}, False),
        ({"user": {"id": "u-2"}}, False),
        ({"self": 1}, False),
        ({"allow_existing": True}, True),
        ({"allow_existing": None}, False),
        ({"allow_existing": 1}, False),
        ({"metadata": {f"key-{number}": "v" for number in range(48)}}, True),
        ({"metadata": {f"key-{number}": "v" for number in range(49)}}, False),
        *(({name: None}, True) for name in SETTABLE),
        *(({name: True}, False) for name in fields_of(Customer) if name not in SETTABLE),
    ],
)
def test_request_takes_its_schema(world: World, changes: Json, taken: bool) -> None:
    body = {**BODY, **changes}
    response = call(world, "create_customer", body=json.dumps(body))
    assert REQUEST.is_valid(body) is taken
    assert response["statusCode"] == (201 if taken else 422)


@pytest.mark.parametrize(
    ("fields", "taken"),
    [
        ({}, True),
        ({"take_over": True}, True),
        ({"take_over": None}, False),
        ({"take_over": 1}, False),
        ({"stripe_id": None}, False),
        ({"stripe_id": ""}, False),
        ({"stripe_id": "sub_1"}, False),
        ({"stripe_id": "cus_" + "1" * 251}, True),
        ({"stripe_id": "cus_" + "1" * 252}, False),
        ({"user_id": "u-1"}, False),
    ],
)
def test_adoption_takes_its_schema(world: World, fields: Json, taken: bool) -> None:
    body = {"stripe_id": "cus_1", **fields}
    response = call(world, "adopt_customer", body=json.dumps(body))
    assert ADOPTION.is_valid(body) is taken
    assert response["statusCode"] == (404 if taken else 422)


@pytest.mark.parametrize("missing", ["user_id", "billing_email"])
def test_required_fields(world: World, missing: str) -> None:
    body = {name: value for name, value in BODY.items() if name != missing}
    assert not REQUEST.is_valid(body)
    assert call(world, "create_customer", body=json.dumps(body))["statusCode"] == 422


USER_IDS = (
    "u",
    "u" * 500,
    "u" * 501,
    "u/1",
    "u?1",
    "a@b.c:~_-",
    ".",
    "..",
    "é",
    "a b",
    "a+b",
    "%41",
)


@pytest.mark.parametrize("user_id", USER_IDS)
@pytest.mark.parametrize(
    ("function", "place"),
    [("get_customer", "UserIdInPath"), ("get_customer_by_query", "UserIdInQuery")],
)
def test_user_id_in_url_takes_its_schema(
    world: World, function: str, place: str, user_id: str
) -> None:
    schema = validator(DOCUMENT["components"]["parameters"][place]["schema"])
    status = call(world, function, user_id)["statusCode"]
    assert status == (404 if schema.is_valid(user_id) else 422)
