"""openapi.json: the HTTP API as a contract, generated from the code.

Fields come from the field table, limits from where they are checked, problems from the translation
of errors, and the examples from the Stripe double through the product's mapping. Follows
https://spec.openapis.org/oas/v3.1.1.html.
"""

from __future__ import annotations

import inspect
import json
import random
import re
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from http import HTTPStatus
from pathlib import Path
from typing import Any

from local.stripe_double import StripeDouble
from stripe_integrations import errors
from stripe_integrations.actions.customers import request
from stripe_integrations.actions.customers.adopt import ID_PATTERN, MAX_ID_LENGTH
from stripe_integrations.actions.customers.guard import MAX_IDS
from stripe_integrations.actions.customers.snapshot import TOKEN_KEY, USER_KEY
from stripe_integrations.actions.customers.update import MAX_KEY_LENGTH
from stripe_integrations.config import Settings
from stripe_integrations.context import Context, use
from stripe_integrations.entrypoints import http
from stripe_integrations.entrypoints.caller import OWN_FIELDS
from stripe_integrations.entrypoints.serialization import customer_to_json
from stripe_integrations.entrypoints.user_in_url import PATH_PATTERN
from stripe_integrations.models import KINDS, Card, Customer, Owner, Pointer, Subscription
from stripe_integrations.models.fields import Text, fields_of
from stripe_integrations.models.observation import Observation
from stripe_integrations.models.table import Record

Json = dict[str, Any]
Kinds = tuple[type[errors.StripeIntegrationsError], ...]

ROOT = Path(__file__).resolve().parent.parent
DOCUMENT = ROOT / "openapi.json"

ABOUT = f"""\
Creates, adopts, reads, updates, synchronizes and soft-deletes the Stripe customers of your users.

Fields are Stripe's, under Stripe's names. Stripe's times are Unix seconds and amounts are in the
currency's smallest unit, as Stripe gives them; `created_at`, `modified_at` and `date_purged` are
ISO 8601. A response contains every field, null or not; later versions may add some.

Errors are problem details (RFC 9457), and their `type` is stable. API Gateway's own errors,
returned before a function is invoked, are JSON objects with a `message`. A 503 may be retried.

Bodies may be up to {http.MAX_API_BODY_BYTES // 1024} KiB."""

EXAMPLE_REQUEST: Json = {
    "user_id": "user-1",
    "billing_email": "jenny@example.com",
    "name": "Jenny Rosen",
    "address": {"line1": "1 Main Street", "city": "Brussels", "country": "BE"},
    "preferred_locales": ["nl", "fr"],
    "metadata": {"plan": "pro"},
}
EXAMPLE_REQUEST_BY_TOKEN: Json = {
    name: value for name, value in EXAMPLE_REQUEST.items() if name in OWN_FIELDS
}
EXAMPLE_UPDATE: Json = {"name": "Jenny Rosen", "phone": "+32 2 555 01 02", "address": None}
EXAMPLE_ADOPTION: Json = {"stripe_id": "cus_NffrFeUfNV2Hib"}
EXAMPLE_TOKEN = "stripe-customers/00000000-0000-4000-8000-000000000000"  # noqa: S105 - an id
MOMENT = 1_767_607_200
"""When the customer of the examples was created."""

EVERYWHERE: Kinds = (
    errors.ForbiddenError,
    errors.InvalidFieldError,
    errors.DatabaseUnavailableError,
    errors.NewerSchemaError,
    errors.ConfigurationError,
    errors.StripeIntegrationsError,
)
OF_STRIPE: Kinds = (
    errors.StripeUnavailableError,
    errors.StripeError,
    errors.WrongModeError,
    errors.SecretUnavailableError,
)
OF_WRITING: Kinds = (errors.ConflictError, errors.DatabaseRefusedError)
OF_BODY: Kinds = (
    errors.MalformedRequestError,
    errors.RequestTooLargeError,
    errors.UnsupportedMediaTypeError,
)
OF_REQUIRING: Kinds = (errors.CustomerNotFoundError, errors.CustomerBeingCreatedError)

MEANINGS = {
    "malformed-request": "The body is not a JSON object in UTF-8.",
    "forbidden": "The token belongs to another user, or does not permit setting the fields in"
    " `errors`; or the request was not authorized by its route's authorizer.",
    "customer-not-found": "This user has no customer; or Stripe does not have the one to adopt, or"
    " it was soft-deleted here.",
    "customer-being-created": "This user's customer is being created.",
    "customer-erased": "The Stripe customer was erased, maybe while it was being created.",
    "customer-of-another-user": "The Stripe customer is another user's.",
    "user-has-another-customer": "This user has another customer.",
    "take-over-required": "The metadata of the Stripe customer names another deployment, or another"
    " user: adopting it takes `take_over`.",
    "customer-exists": "Stripe has a customer with this e-mail that is no user's, which the"
    " deployment checks (`ExistingCustomers`); nothing was created. With IAM or the admin scope,"
    " `stripe_ids` has the ids: adopt one, or set `allow_existing`.",
    "conflict": "Concurrent writers changed the same record every time; nothing was written.",
    "request-too-large": "The body is too large.",
    "unsupported-media-type": "The Content-Type is not application/json.",
    "invalid-field": "The fields in `errors` were refused, by us or by Stripe.",
    "internal-error": "The request failed on our side; see the log.",
    "misconfigured": "The deployment is not set up correctly; see the log.",
    "record-refused": "The record can't be stored; see the log.",
    "records-not-stored": "The deployment leaves out records that `sync` needs.",
    "stripe-refused": "Stripe refused the request or the API key; `code` is Stripe's.",
    "wrong-mode": "Stripe returned an object of the other mode.",
    "stripe-unavailable": "Stripe can't be reached. Try again.",
    "database-unavailable": "The database is busy or can't be reached. Try again.",
    "newer-schema": "A later release has written the record. Try again.",
    "secret-unavailable": "A secret can't be read now. Try again.",
}
"""The meaning of each problem, by the last part of its `type`."""

GATEWAY = {
    401: "Unauthorized",
    403: "Forbidden",
    429: "Too Many Requests",
    500: "Internal Server Error",
    503: "Service Unavailable",
}
"""The errors that API Gateway itself may return on every route."""
GATEWAY_BY_PATH = {404: "Not Found"}
"""Further errors of routes with an id in the path, since an id with a slash matches no route, and
of routes that exist only with `JwtIssuer`."""
GATEWAY_BY_BODY = {413: "Request Entity Too Large"}
"""Further errors of routes with a body: API Gateway's own limit is above ours."""


BY_QUERY, BY_TOKEN = "_by_query", "_by_token"


@dataclass(frozen=True)
class Route:
    """One operation of the API.

    Parameters
    ----------
    method, path : str
        As in the template's route key.
    operation : str
        The id of the operation: the function that it invokes, and `by_query` if the user's id is a
        query parameter, `by_token` if it is the token's subject.
    summary, description : str
        As in OpenAPI.
    responses : mapping
        The descriptions of the successful responses, by status.
    problems : tuple of type
        The errors that it can raise.
    """

    method: str
    path: str
    operation: str
    summary: str
    description: str
    responses: Mapping[int, str]
    problems: Kinds

    @property
    def takes_body(self) -> bool:
        """Whether a request has a body."""
        return self.method in ("PATCH", "PUT") or self.operation.startswith("create_customer")

    @property
    def body(self) -> str:
        """The name of the schema of the request body."""
        action = {"PATCH": "Update", "PUT": "Adopt"}.get(self.method, "Create")
        return f"CustomerTo{action}" + ("ByToken" if self.is_by_token else "")

    @property
    def is_by_token(self) -> bool:
        """Whether the user is the token's."""
        return self.operation.endswith(BY_TOKEN)

    @property
    def gateway(self) -> Mapping[int, str]:
        """The errors that API Gateway may return in its place."""
        return (
            GATEWAY
            | (GATEWAY_BY_PATH if "{" in self.path or self.is_by_token else {})
            | (GATEWAY_BY_BODY if self.takes_body else {})
        )


_ROUTES = (
    Route(
        "POST",
        "/customers",
        "create_customer",
        "Create a user's customer",
        "Created on Stripe and stored here. An existing customer is returned unchanged."
        " Parallel calls, and calls after a crash, return the same customer. null means"
        " that a field is absent.",
        {200: "The user's existing customer, unchanged.", 201: "The customer that was created."},
        (
            *EVERYWHERE,
            *OF_STRIPE,
            *OF_WRITING,
            *OF_BODY,
            errors.CustomerOfAnotherUserError,
            errors.CustomerErasedError,
            errors.CustomerExistsError,
        ),
    ),
    Route(
        "GET",
        "/customers/{user_id}",
        "get_customer",
        "Read a user's customer",
        "With its cards and subscriptions, as stored in the table. Stripe is not called.",
        {200: "The customer."},
        (*EVERYWHERE, errors.CustomerNotFoundError),
    ),
    Route(
        "PATCH",
        "/customers/{user_id}",
        "update_customer",
        "Update a user's customer",
        "On Stripe and here. Only the given fields change; null clears a field. After a 503 the"
        " update may have taken effect, and after a 409 of type `conflict` it has.",
        {200: "The updated customer."},
        (
            *EVERYWHERE,
            *OF_STRIPE,
            *OF_WRITING,
            *OF_REQUIRING,
            *OF_BODY,
        ),
    ),
    Route(
        "POST",
        "/customers/{user_id}/sync",
        "sync_customer",
        "Synchronize a user's customer with Stripe",
        "With its cards and subscriptions. A customer that was deleted on Stripe is"
        " soft-deleted here and returned as soft-deleted.",
        {200: "The customer in its current state on Stripe."},
        (
            *EVERYWHERE,
            *OF_STRIPE,
            *OF_WRITING,
            *OF_REQUIRING,
            errors.RecordsNotStoredError,
        ),
    ),
    Route(
        "DELETE",
        "/customers/{user_id}",
        "soft_delete_customer",
        "Soft-delete a user's customer",
        "The record never changes again, and Stripe is not called. A later create"
        " creates a new customer.",
        {204: "The customer is soft-deleted."},
        (*EVERYWHERE, *OF_WRITING, *OF_REQUIRING),
    ),
    Route(
        "PUT",
        "/customers/{user_id}",
        "adopt_customer",
        "Make an existing Stripe customer a user's customer",
        "It is stored with its cards and subscriptions; on Stripe only its metadata changes."
        " Callers need IAM, or a token with the admin scope. After a 503 it may be stored: the same"
        " request completes it.",
        {200: "The user's customer, which it was already.", 201: "The adopted customer."},
        (
            *EVERYWHERE,
            *OF_STRIPE,
            *OF_WRITING,
            *OF_REQUIRING,
            *OF_BODY,
            errors.CustomerOfAnotherUserError,
            errors.CustomerErasedError,
            errors.UserHasAnotherCustomerError,
            errors.TakeOverRequiredError,
        ),
    ),
)

ROUTES = (
    *_ROUTES,
    *(
        replace(
            route,
            path=route.path.replace("/{user_id}", ""),
            operation=route.operation + BY_QUERY,
            summary=f"{route.summary}, by any id",
        )
        for route in _ROUTES
        if "{" in route.path
    ),
    *(
        replace(
            route,
            path=re.sub("^/customers(/{user_id})?", "/me", route.path),
            operation=route.operation + BY_TOKEN,
            summary=route.summary.replace("a user's customer", "the caller's customer"),
        )
        for route in _ROUTES
        if route.method not in ("DELETE", "PUT")
    ),
)
"""The routes of the template: those with a user's id in the path, again with it in the query, and
again for the user of a token, who can neither delete nor adopt."""


def document() -> Json:
    """Return the whole document."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    customer = example_customer()
    paths: dict[str, Json] = {}
    for route in ROUTES:
        paths.setdefault(route.path, {})[route.method.lower()] = operation(route)
    return {
        "openapi": "3.1.1",
        "info": {
            "title": "Stripe customers",
            "summary": "The Stripe customers of your users, stored in your own AWS account.",
            "description": ABOUT,
            "version": project["version"],
            "license": {"name": project["license"], "identifier": project["license"]},
        },
        "servers": [
            {
                "url": "https://{api_id}.execute-api.{region}.amazonaws.com",
                "description": "The stack's output `ApiUrl`.",
                "variables": {"api_id": {"default": "api-id"}, "region": {"default": "eu-west-1"}},
            }
        ],
        "security": [{"sigv4": []}, {"jwt": []}],
        "tags": [{"name": "customers", "description": "The Stripe customers of your users."}],
        "paths": paths,
        "components": {
            "schemas": schemas(),
            "examples": {
                "CustomerToCreate": {"value": EXAMPLE_REQUEST},
                "CustomerToCreateByToken": {"value": EXAMPLE_REQUEST_BY_TOKEN},
                "CustomerToUpdate": {"value": EXAMPLE_UPDATE},
                "CustomerToUpdateByToken": {"value": EXAMPLE_UPDATE},
                "CustomerToAdopt": {"value": EXAMPLE_ADOPTION},
                "Customer": {"value": customer},
                "CreatedCustomer": {"value": {**customer, "existing": False}},
                "ExistingCustomer": {"value": {**customer, "existing": True}},
            },
            "parameters": {**user_id_parameters(), "IdempotencyKey": idempotency_key_parameter()},
            "headers": {
                "RetryAfter": {
                    "description": "Seconds after which to try again.",
                    "schema": {"type": "string", "pattern": "^[0-9]+$"},
                    "example": "5",
                }
            },
            "securitySchemes": security_schemes(),
        },
    }


def operation(route: Route) -> Json:
    """Return the Operation Object of a route."""
    described: Json = {
        "operationId": route.operation,
        "tags": ["customers"],
        "summary": route.summary,
        "description": route.description,
    }
    parameters = list(parameter_names(route))
    if parameters:
        described["parameters"] = [reference("parameters", name) for name in parameters]
    if route.is_by_token:
        described["security"] = [{"jwt": []}]
    if route.takes_body:
        described["requestBody"] = {"required": True, "content": json_content(route.body)}
    return {**described, "responses": responses(route)}


def parameter_names(route: Route) -> Iterator[str]:
    """Yield the names of the parameters of a route: the user, and the idempotency key."""
    if "{" in route.path:
        yield "UserIdInPath"
    elif route.operation.endswith(BY_QUERY):
        yield "UserIdInQuery"
    if route.method == "PATCH":
        yield "IdempotencyKey"


def responses(route: Route) -> Json:
    """Return the responses of a route, by status."""
    done: dict[int, Json] = {
        status: {"description": meaning}
        | (
            {}
            if status == HTTPStatus.NO_CONTENT
            else {"content": json_content(returned(route, status))}
        )
        | ({"links": links()} if route.operation == "create_customer" else {})
        for status, meaning in route.responses.items()
    }
    problems: dict[int, dict[str, Json]] = {}
    for kind in route.problems:
        body = example_problem(kind)
        problems.setdefault(body["status"], {})[slug_of(body)] = body
    failed = {
        status: failure(status, problems.get(status, {}), route.gateway.get(status))
        for status in problems.keys() | route.gateway.keys()
    }
    everything = done | failed
    return {str(status): everything[status] for status in sorted(everything)}


def returned(route: Route, status: int) -> str:
    """Return the name of the schema of a successful response."""
    if not route.operation.startswith("create_customer"):
        return "Customer"
    return "CreatedCustomer" if status == HTTPStatus.CREATED else "ExistingCustomer"


def links() -> Json:
    """Return the links to the operations on an existing customer."""
    of_this_user = {"user_id": "$response.body#/user_id"}
    return {
        route.operation: {"operationId": route.operation, "parameters": of_this_user}
        for route in ROUTES
        if "{" in route.path
    }


def json_content(name: str) -> Json:
    """Return the JSON content of one of the schemas, with its example."""
    examples = {"example": reference("examples", name)}
    return {"application/json": {"schema": reference("schemas", name), "examples": examples}}


def failure(status: int, problems: Mapping[str, Json], gateway: str | None) -> Json:
    """Return an error response: our problems by slug, and API Gateway's message."""
    content: Json = {}
    parts = [MEANINGS[slug] for slug in problems]
    if problems:
        types = [body["type"] for body in problems.values()]
        of_this = {"type": {"enum": types}, "status": {"const": status}}
        content["application/problem+json"] = {
            "schema": {"allOf": [reference("schemas", "Problem"), {"properties": of_this}]},
            "examples": {slug: {"value": body} for slug, body in problems.items()},
        }
    if gateway:
        example = {"message": gateway}
        schema = reference("schemas", "Message")
        content["application/json"] = {"schema": schema, "example": example}
        parts.append("API Gateway's own response has a `message`." if problems else f"{gateway}.")
    response: Json = {"description": " ".join(parts)}
    if status == HTTPStatus.SERVICE_UNAVAILABLE:
        response["headers"] = {"Retry-After": reference("headers", "RetryAfter")}
    return {**response, "content": content}


def example_problem(kind: type[errors.StripeIntegrationsError]) -> Json:
    """Return the response body of an error."""
    if issubclass(kind, errors.InvalidFieldError):
        return dict(http.problem(kind("tax_exempt", "must be a string")).body or {})
    meaning = MEANINGS[slug_of(dict(http.problem(kind("")).body or {}))]
    return dict(http.problem(kind(meaning)).body or {})


def slug_of(problem: Json) -> str:
    """Return the last part of a problem's type."""
    slug: str = problem["type"].rpartition(":")[2]
    return slug


# ---- schemas --------------------------------------------------------------------------------


def schemas() -> Json:
    """Return the schemas of the request and response bodies."""
    customer = record_schema(Customer)
    # Unassigned customers have none, and no route returns them.
    customer["properties"]["user_id"]["type"] = "string"
    for kind in KINDS:
        items = {"type": "array", "items": reference("schemas", kind.__name__)}
        customer["properties"][kind.COLLECTION] = items
        if kind.IS_DEFAULT:
            customer["required"].append(kind.COLLECTION)
    return {
        "CustomerToCreate": customer_to_create(),
        "CustomerToCreateByToken": by_token(customer_to_create()),
        "CustomerToUpdate": customer_to_update(),
        "CustomerToUpdateByToken": by_token(customer_to_update()),
        "CustomerToAdopt": customer_to_adopt(),
        "Customer": customer,
        "CreatedCustomer": customer_of_create(existing=False),
        "ExistingCustomer": customer_of_create(existing=True),
        **{kind.__name__: record_schema(kind) for kind in KINDS},
        "Problem": {
            "description": "Problem details (RFC 9457).",
            "type": "object",
            "properties": {
                "type": {"type": "string", "description": "The kind of problem; stable."},
                "title": {"type": "string"},
                "status": {"type": "integer", "description": "The HTTP status."},
                "detail": {"type": "string", "description": "A human-readable explanation."},
                "field": {"type": "string", "description": "The first field that was refused."},
                "errors": {
                    "type": "array",
                    "description": "Every field that was refused.",
                    "items": {
                        "type": "object",
                        "properties": {
                            "field": {"type": "string"},
                            "detail": {"type": "string", "description": "Why it was refused."},
                        },
                        "required": ["field", "detail"],
                    },
                },
                "code": {"type": "string", "description": "Stripe's error code."},
                "stripe_ids": {
                    "type": "array",
                    "description": "The newest Stripe customers with the same e-mail.",
                    "items": {"type": "string"},
                    "maxItems": MAX_IDS,
                },
            },
            "required": ["type", "title", "status", "detail"],
        },
        "Message": {
            "description": "An error of API Gateway itself.",
            "type": "object",
            "properties": {"message": {"type": ["string", "null"]}},
            "required": ["message"],
        },
    }


def record_schema(model: type[Record]) -> Json:
    """Return the schema of a record in a response: all public fields, null or not, and flags."""
    properties: Json = {
        name: field.response_schema for name, field in fields_of(model).items() if not field.private
    }
    for flag, description in model.COMPUTED_FLAGS.items():
        properties[flag] = {"type": "boolean", "description": description}
    return {
        "description": inspect.getdoc(model),
        "type": "object",
        "properties": properties,
        "required": list(properties),
    }


def customer_of_create(*, existing: bool) -> Json:
    """Return the schema of a create's response: the customer, and whether it existed already."""
    described = "Whether the user had this customer already: it is returned unchanged."
    whether = {"type": "boolean", "const": existing, "description": described}
    return {
        "allOf": [
            reference("schemas", "Customer"),
            {"type": "object", "properties": {"existing": whether}, "required": ["existing"]},
        ]
    }


def customer_to_create() -> Json:
    """Return the schema of the request body of a create."""
    table = fields_of(Customer)
    settable = {
        name: field.request_schema
        for name, field in table.items()
        if field.settable and not field.private
    }
    settable["metadata"] |= metadata_schema("string", "number", "boolean")
    settable["default_source"]["description"] = "Sent to Stripe as `source`."
    for name in ("currency", "delinquent"):
        settable[name]["description"] = "Stored in the record until Stripe reports it."
    return {
        "description": f"The user, and the customer's values on Stripe. {_REFUSALS}",
        "type": "object",
        "properties": {
            "user_id": user_id_schema(),
            "billing_email": {"type": "string", **_BILLING_EMAIL},
            **settable,
            "allow_existing": {
                "type": "boolean",
                "default": False,
                "description": "Whether to create a customer although Stripe has one with this"
                " e-mail that is no user's, in a deployment that checks that.",
            },
        },
        "required": ["user_id", "billing_email"],
        "additionalProperties": False,
    }


def customer_to_update() -> Json:
    """Return the schema of the request body of an update."""
    table = fields_of(Customer)
    changeable = {
        name: field.update_schema
        for name, field in table.items()
        if field.settable and field.param and not field.private
    }
    changeable["metadata"] |= metadata_schema("string", "number", "boolean", "null")
    changeable["metadata"]["description"] = (
        "The keys to change: null clears a key. null in place of the object clears all keys but the"
        " reserved ones, and is refused with an Idempotency-Key."
    )
    changeable["default_source"]["description"] = (
        "A token (`tok_…`, `btok_…`), which becomes a new source in place of the default one, or"
        " the id of an attached source."
    )
    return {
        "description": f"The values to change; null clears. {_REFUSALS}",
        "type": "object",
        "properties": {
            "billing_email": {"type": ["string", "null"], **_BILLING_EMAIL},
            **changeable,
        },
        "additionalProperties": False,
    }


_REFUSALS = (
    "What Stripe refuses is refused here too, with the name of the field. Objects may be nested"
    f" {request.MAX_DEPTH} levels deep."
)
_BILLING_EMAIL = {
    "description": "Becomes Stripe's `email`; Stripe checks its syntax.",
    "maxLength": Text.MAX_LENGTH,
    "pattern": r"\S",
}


def metadata_schema(*types: str) -> Json:
    """Return what the schema of a caller's metadata has besides its type."""
    return {
        "description": "Your own keys and values.",
        "maxProperties": request.MAX_METADATA_KEYS,
        "propertyNames": {
            "minLength": 1,
            "maxLength": request.MAX_METADATA_KEY_LENGTH,
            "not": {"enum": [USER_KEY, TOKEN_KEY]},
        },
        "additionalProperties": {
            "type": list(types),
            "description": "Stored as text.",
            "maxLength": request.MAX_METADATA_VALUE_LENGTH,
        },
    }


def by_token(whole: Json) -> Json:
    """Return the schema of a request body for the token's user."""
    fields = {name: field for name, field in whole["properties"].items() if name in OWN_FIELDS}
    required = [name for name in whole.get("required", ()) if name in fields]
    return {
        **whole,
        "description": f"The user's own values. {whole['description'].partition('. ')[2]}",
        "properties": fields,
        **({"required": required} if required else {}),
    }


def customer_to_adopt() -> Json:
    """Return the schema of the request body of an adoption."""
    return {
        "description": "The Stripe customer that becomes the user's.",
        "type": "object",
        "properties": {
            "stripe_id": {
                "type": "string",
                "description": "Stripe's id of the customer.",
                "maxLength": MAX_ID_LENGTH,
                "pattern": ID_PATTERN,
            },
            "take_over": {
                "type": "boolean",
                "default": False,
                "description": "Whether to adopt it although its metadata names another deployment,"
                " or another user.",
            },
        },
        "required": ["stripe_id"],
        "additionalProperties": False,
    }


def user_id_schema() -> Json:
    """Return the schema of a user id."""
    return {
        "type": "string",
        "description": "Identifies the user; never changes.",
        "minLength": 1,
        "maxLength": Pointer.MAX_USER_ID_LENGTH,
    }


def user_id_parameters() -> Json:
    """Return the parameters with the user's id: in the path, and in the query for any id."""
    common = {"name": "user_id", "required": True, "example": EXAMPLE_REQUEST["user_id"]}
    in_path = {
        "in": "path",
        "description": "An id of these characters alone, since API Gateway decodes paths. Other ids"
        " are passed in the query, to the operations whose name ends in `by_query`.",
        "schema": {**user_id_schema(), "pattern": PATH_PATTERN},
    }
    in_query = {
        "in": "query",
        "description": "Any id, percent-encoded: a space is %20 and a plus is %2B. It is the only"
        " parameter.",
        "schema": user_id_schema(),
    }
    return {"UserIdInPath": {**common, **in_path}, "UserIdInQuery": {**common, **in_query}}


def idempotency_key_parameter() -> Json:
    """Return the parameter by which a repeated update takes effect once."""
    return {
        "name": "Idempotency-Key",
        "in": "header",
        "required": False,
        "description": "A repeated request with the same key and body takes effect once within a"
        " day, and returns the current customer. A key is that of one customer. Without one, each"
        " request takes effect.",
        "schema": {
            "type": "string",
            "minLength": 1,
            "maxLength": MAX_KEY_LENGTH,
            "pattern": "^[ -~]*$",
        },
        "example": "5f1d3c52-7a0c-4a3e-9f5e-1f2d3c4b5a69",
    }


def security_schemes() -> Json:
    """Return the two authorization schemes, each for other routes."""
    return {
        "sigv4": {
            "type": "apiKey",
            "in": "header",
            "name": "Authorization",
            "description": "For the routes `/customers`, unless the stack has"
            " `CustomersAuthorizer=jwt`: AWS Signature Version 4, for the service `execute-api`;"
            " the caller's IAM policy has to allow `execute-api:Invoke`.",
            "x-amazon-apigateway-authtype": "awsSigv4",
        },
        "jwt": {
            "type": "http",
            "scheme": "bearer",
            "bearerFormat": "JWT",
            "description": "Where the stack has the parameter `JwtIssuer`, for the routes `/me`,"
            " and with `CustomersAuthorizer=jwt` for the routes `/customers` in place of IAM. The"
            " caller reaches the customer whose `user_id` is the token's `sub`, and sets only "
            + ", ".join(f"`{name}`" for name in sorted(OWN_FIELDS))
            + "; under `/customers`, a token with the scope of `JwtAdminScope` reaches all and sets"
            " every field.",
        },
    }


def reference(kind: str, name: str) -> Json:
    """Return a reference to one of the document's components."""
    return {"$ref": f"#/components/{kind}/{name}"}


# ---- examples -------------------------------------------------------------------------------


def example_customer() -> Json:
    """Return a customer with a card and a subscription, created on the Stripe double."""
    double = StripeDouble(now=lambda: MOMENT, random=random.Random(1))  # noqa: S311

    def request(method: str, path: str, given: Json | None = None) -> Json:
        response = double.request(method, path, given, {"Authorization": "Bearer sk_test_double"})
        if response.status != HTTPStatus.OK:
            raise RuntimeError(response.body)
        return response.body

    given = dict(EXAMPLE_REQUEST)
    user_id, email = given.pop("user_id"), given.pop("billing_email")
    ours = {USER_KEY: user_id, TOKEN_KEY: EXAMPLE_TOKEN}
    given |= {"email": email, "metadata": {**given["metadata"], **ours}}
    stripe_id = request("POST", "/v1/customers", given)["id"]
    method = request("POST", "/v1/payment_methods/pm_card_visa/attach", {"customer": stripe_id})
    price = {"currency": "eur", "unit_amount": 990, "recurring": {"interval": "month"}}
    price["product_data"] = {"name": "Pro"}
    items = [{"price": request("POST", "/v1/prices", price)["id"]}]
    plan = {"customer": stripe_id, "items": items, "default_payment_method": method["id"]}
    subscription = request("POST", "/v1/subscriptions", plan)
    default = {"invoice_settings": {"default_payment_method": method["id"]}}
    fetched = request("POST", f"/v1/customers/{stripe_id}", default)

    observation = Observation.of_event(MOMENT)
    with use(Context(Settings(table_name="unused"), clock=lambda: MOMENT)) as context:
        customer = Customer.new(Owner(user_id, stripe_id), context.now())
        for name, value in Customer.values_of(fetched).items():
            setattr(customer, name, value)
        customer.children = [
            *Card.from_stripe(customer.pk, fetched, [method], observation),
            *Subscription.from_stripe(customer.pk, fetched, [subscription], observation),
        ]
        return customer_to_json(customer)


def text() -> str:
    """Return the document as text."""
    return json.dumps(document(), indent=2, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    DOCUMENT.write_text(text())
