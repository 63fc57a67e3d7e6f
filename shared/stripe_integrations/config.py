"""The settings of a deployment, read from the environment when they are first needed."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from importlib import import_module

from stripe_integrations.errors import ConfigurationError

API_VERSION = "2026-10-28.endive"
"""The version of Stripe's API that every call uses, and that webhook endpoints should have."""

STRIPE_API_BASE = "https://api.stripe.com"


class Authorizer(StrEnum):
    """The authorizer that the routes `/customers` require; the routes `/me` require JWT."""

    IAM = "iam"
    JWT = "jwt"
    NONE = "none"


class WebhookIngress(StrEnum):
    """How Stripe's events reach a deployment."""

    FUNCTION_URL = "function-url"
    HTTP_API = "http-api"
    EVENTBRIDGE = "eventbridge"
    NONE = "none"


class UnassignedCustomers(StrEnum):
    """What happens to customers on Stripe that no user of this deployment has."""

    IGNORE = "ignore"
    STORE = "store"


class ExistingCustomers(StrEnum):
    """What a create does about customers that exist on Stripe with the same e-mail."""

    IGNORE = "ignore"
    CHECK = "check"


SIGNING_SECRET = re.compile(r"whsec_[\w+/=-]+", re.ASCII)
"""The format of a webhook's signing secret."""
_MODES = {"test": False, "live": True}
_SHORTEST_RETENTION_DAYS = 31
_HANDLERS_MODULE = "stripe_event_handlers"
_NAME = re.compile(r"[A-Za-z0-9._-]{1,128}")
_METADATA_KEY = re.compile(r"[A-Za-z0-9._-]{1,40}")
_OWN_METADATA = "stripe_integrations_"
_KIND = re.compile(r"[a-z_0-9]+(\.[a-z_0-9]+)*(\.\*)?")
# A type that begins with an API version is a thin event's, which is never published.
_PUBLISH_TYPE = re.compile(r"\*|(?!v\d+\.)[a-z_0-9]+\.([a-z_0-9]+\.)*([a-z_0-9]+|\*)")
_VARIABLE = re.compile(r"[A-Za-z]\w*", re.ASCII)
_FUNCTION = re.compile(r"\w+(\.\w+)*:\w+(\.\w+)*")


@dataclass(frozen=True, kw_only=True)
class Settings:
    """A deployment's settings.

    Parameters
    ----------
    table_name : str
        The DynamoDB table.
    livemode : bool
        Whether the deployment serves Stripe's live mode.
    api_key_name, webhook_secret_name : str or None
        Where the secret is stored: ``secretsmanager:NAME`` or ``ssm:NAME``.
    api_key, webhook_secret : str or None
        The secret itself, for local use; ignored where there is a name.
    api_base : str
        Base URL of Stripe's API.
    stored_records : frozenset of str or None
        The kinds of records that are stored under a customer, by name; by default, Card and
        Subscription.
    event_retention_days : int
        How long a finished event is stored, at least 31 days: Stripe lists events for 30.
    event_handlers : mapping
        The custom handlers: a type of event, ``invoice.paid`` or ``invoice.*``, to the function
        that is called for it, ``module:function``. They are declared as `HANDLERS` in the module
        `stripe_event_handlers`, if the deployment has one.
    handler_environment : mapping
        Environment variables that are set before a custom handler is imported.
    webhook_ingress : WebhookIngress
        How Stripe's events arrive: signed over HTTP, at a Function URL or at the API; from
        EventBridge; or not at all, so that only the sweep of Stripe's list finds them.
    event_source : str or None
        The partner event source that EventBridge delivers from, ``aws.partner/stripe.com/…``.
    event_bus_name : str or None
        The EventBridge bus on which events of our customers are published, if any.
    publish_types : tuple of str
        Patterns of the types of event that are published though they change no record: an exact
        type, ``invoice.paid``; a family, ``invoice.*``; or ``*``. Thin events are never published.
    dead_letters_url : str or None
        The SQS queue for failed events.
    erasure_log_group : str or None
        The CloudWatch log group that is the erasure log, from which the ids of erased customers are
        read after the table was restored.
    deployment_name : str or None
        Identifies the customers that this deployment created on Stripe: it must be unique among the
        deployments on one Stripe account, and never change. The first create stores it in the
        table. A process configured with a different name is rejected; a process without a name uses
        the stored one.
    existing_customers : ExistingCustomers
        Whether a create is refused where Stripe has a customer with the same e-mail that is no
        user's.
    api_authorizer : Authorizer
        The authorizer of the routes `/customers`: a request that it has not authorized is refused.
        `none` is for local use: every request to them is trusted. The routes `/me` always require
        JWT.
    jwt_admin_scope : str or None
        The scope that lets a token read and change every user's customer; without one, no token
        may.
    unassigned_customers : UnassignedCustomers
        Whether customers on Stripe that no user has are stored, and updated by their events,
        until a user adopts them. By default they are not.
    adopt_from : str or None
        The key of a customer's metadata that names its user: an unassigned customer that has it is
        adopted by that user, if they have no customer. Needs `unassigned_customers`.
    walk_stripe_percent : int
        How much of Stripe's rate limits a walk of the account uses, in percent.
    walk_write_units : int
        How many of DynamoDB's write units a walk uses in a second, at most.
    reports_bucket : str or None
        The S3 bucket for what a walk could not store; without one, it is only counted.
    """

    table_name: str
    livemode: bool = False
    api_key_name: str | None = None
    webhook_secret_name: str | None = None
    api_key: str | None = field(default=None, repr=False)
    webhook_secret: str | None = field(default=None, repr=False)
    api_base: str = STRIPE_API_BASE
    stored_records: frozenset[str] | None = None
    event_retention_days: int = 90
    event_handlers: Mapping[str, str] = field(default_factory=dict)
    handler_environment: Mapping[str, str] = field(default_factory=dict)
    webhook_ingress: WebhookIngress = WebhookIngress.FUNCTION_URL
    event_source: str | None = None
    event_bus_name: str | None = None
    publish_types: tuple[str, ...] = ()
    dead_letters_url: str | None = None
    erasure_log_group: str | None = None
    deployment_name: str | None = None
    existing_customers: ExistingCustomers = ExistingCustomers.IGNORE
    api_authorizer: Authorizer = Authorizer.IAM
    jwt_admin_scope: str | None = None
    unassigned_customers: UnassignedCustomers = UnassignedCustomers.IGNORE
    adopt_from: str | None = None
    walk_stripe_percent: int = 50
    walk_write_units: int = 1000
    reports_bucket: str | None = None

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] = os.environ) -> Settings:
        """Read the settings.

        Raises
        ------
        ConfigurationError
            A variable is missing or invalid; the message names it.
        """
        table_name = environment.get("TABLE_NAME")
        if not table_name:
            raise ConfigurationError("TABLE_NAME is not set")
        event_handlers = custom_handlers()
        handler_environment = _handler_environment(environment.get("HANDLER_ENVIRONMENT") or "")
        if handler_environment and not event_handlers:
            raise ConfigurationError(
                "HANDLER_ENVIRONMENT is set, but the bundle has no custom handlers: "
                "set EVENT_HANDLERS in the build"
            )
        for name, value in handler_environment.items():
            if environment.get(name, value) != value:
                raise ConfigurationError(
                    f"HANDLER_ENVIRONMENT can't override the function's variable {name}"
                )
        unassigned = _unassigned(environment.get("UNASSIGNED_CUSTOMERS") or "ignore")
        adopt_from = environment.get("ADOPT_FROM") or None
        if adopt_from and unassigned is not UnassignedCustomers.STORE:
            raise ConfigurationError("ADOPT_FROM needs UNASSIGNED_CUSTOMERS=store")
        return cls(
            table_name=table_name,
            livemode=_mode(environment.get("STRIPE_MODE") or "test"),
            api_key_name=environment.get("STRIPE_API_KEY_NAME") or None,
            webhook_secret_name=environment.get("STRIPE_WEBHOOK_SECRET_NAME") or None,
            api_key=environment.get("STRIPE_API_KEY") or None,
            webhook_secret=environment.get("STRIPE_WEBHOOK_SECRET") or None,
            api_base=(environment.get("STRIPE_API_BASE") or STRIPE_API_BASE).rstrip("/"),
            stored_records=_stored_records(environment.get("STORED_RECORDS")),
            event_retention_days=_retention(environment.get("EVENT_RETENTION_DAYS") or "90"),
            event_handlers=event_handlers,
            handler_environment=handler_environment,
            webhook_ingress=_ingress(environment.get("WEBHOOK_INGRESS") or "function-url"),
            event_source=environment.get("STRIPE_EVENT_SOURCE") or None,
            event_bus_name=environment.get("EVENT_BUS_NAME") or None,
            publish_types=_publish_types(environment.get("PUBLISH_TYPES") or ""),
            dead_letters_url=environment.get("DEAD_LETTERS_URL") or None,
            erasure_log_group=environment.get("ERASURE_LOG_GROUP") or None,
            deployment_name=_name(environment.get("DEPLOYMENT_NAME") or None),
            existing_customers=_existing(environment.get("EXISTING_CUSTOMERS") or "ignore"),
            api_authorizer=_authorizer(environment.get("API_AUTHORIZER") or "iam"),
            jwt_admin_scope=environment.get("JWT_ADMIN_SCOPE") or None,
            unassigned_customers=unassigned,
            adopt_from=_metadata_key(adopt_from),
            walk_stripe_percent=_positive(environment, "WALK_STRIPE_PERCENT", "50"),
            walk_write_units=_positive(environment, "WALK_WRITE_UNITS_PER_SECOND", "1000"),
            reports_bucket=environment.get("REPORTS_BUCKET") or None,
        )


def api_key_pattern(mode: str) -> re.Pattern[str]:
    """Return the format of a key of Stripe's API, secret or restricted, of the test or live mode.

    https://docs.stripe.com/keys
    """
    return re.compile(rf"[sr]k_{re.escape(mode)}_[\w-]+", re.ASCII)


def _mode(mode: str) -> bool:
    if mode not in _MODES:
        raise ConfigurationError("STRIPE_MODE must be test or live")
    return _MODES[mode]


def _authorizer(name: str) -> Authorizer:
    try:
        return Authorizer(name)
    except ValueError:
        raise ConfigurationError("API_AUTHORIZER must be iam, jwt or none") from None


def _existing(name: str) -> ExistingCustomers:
    try:
        return ExistingCustomers(name)
    except ValueError:
        raise ConfigurationError("EXISTING_CUSTOMERS must be ignore or check") from None


def _ingress(name: str) -> WebhookIngress:
    try:
        return WebhookIngress(name)
    except ValueError:
        raise ConfigurationError(
            "WEBHOOK_INGRESS must be function-url, http-api, eventbridge or none"
        ) from None


def _unassigned(name: str) -> UnassignedCustomers:
    try:
        return UnassignedCustomers(name)
    except ValueError:
        raise ConfigurationError("UNASSIGNED_CUSTOMERS must be ignore or store") from None


def _metadata_key(key: str | None) -> str | None:
    if key is not None and (not _METADATA_KEY.fullmatch(key) or key.startswith(_OWN_METADATA)):
        raise ConfigurationError(
            "ADOPT_FROM must be a key of Stripe's metadata, of 1 to 40 letters, digits, dots, "
            "underscores and hyphens, other than those of this product"
        )
    return key


def _positive(environment: Mapping[str, str], variable: str, default: str) -> int:
    number = environment.get(variable) or default
    if not number.isdecimal() or int(number) < 1:
        raise ConfigurationError(f"{variable} must be a whole number, at least 1")
    return int(number)


def _name(name: str | None) -> str | None:
    if name is not None and not _NAME.fullmatch(name):
        raise ConfigurationError(
            "DEPLOYMENT_NAME must be 1 to 128 letters, digits, dots, underscores and hyphens"
        )
    return name


def _stored_records(names: str | None) -> frozenset[str] | None:
    return None if names is None else frozenset(_entries(names))


def _publish_types(patterns: str) -> tuple[str, ...]:
    for pattern in _entries(patterns):
        if not _PUBLISH_TYPE.fullmatch(pattern):
            raise ConfigurationError(
                f"PUBLISH_TYPES must be types like invoice.paid, invoice.* or *, not {pattern!r}"
            )
    return tuple(_entries(patterns))


def _entries(text: str) -> list[str]:
    """Split a list that is separated by commas."""
    return [entry.strip() for entry in text.split(",") if entry.strip()]


def _retention(days: str) -> int:
    if not days.isdecimal() or int(days) < _SHORTEST_RETENTION_DAYS:
        raise ConfigurationError(
            f"EVENT_RETENTION_DAYS must be a whole number, at least {_SHORTEST_RETENTION_DAYS}"
        )
    return int(days)


def matches_pattern(event_type: str, pattern: str) -> bool:
    """Return whether a type of event matches a pattern: a type, or a family like ``invoice.*``."""
    family, star, _ = pattern.partition("*")
    return event_type.startswith(family) if star else event_type == pattern


def custom_handlers() -> Mapping[str, str]:
    """Read the declaration of the custom handlers.

    Returns
    -------
    mapping
        `HANDLERS` of the module `stripe_event_handlers`; empty where there is no such module.

    Raises
    ------
    ConfigurationError
        `HANDLERS` is missing or invalid.
    """
    try:
        handlers = getattr(import_module(_HANDLERS_MODULE), "HANDLERS", None)
    except ModuleNotFoundError as error:
        if error.name != _HANDLERS_MODULE:
            raise
        return {}
    if not isinstance(handlers, Mapping) or not all(
        _KIND.fullmatch(str(kind)) and _FUNCTION.fullmatch(str(function))
        for kind, function in handlers.items()
    ):
        raise ConfigurationError(
            f"{_HANDLERS_MODULE}.HANDLERS must map types like invoice.paid or invoice.*"
            " to functions like module:function"
        )
    return dict(handlers)


def _handler_environment(given: str) -> Mapping[str, str]:
    variables = {}
    for assignment in given.split(",") if given else ():
        name, equals, value = assignment.partition("=")
        if not equals or not _VARIABLE.fullmatch(name):
            raise ConfigurationError("HANDLER_ENVIRONMENT must be like NAME=value,NAME=value")
        variables[name] = value
    return variables
