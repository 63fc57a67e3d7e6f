"""What can go wrong, as types under one base.

Messages carry ids and field names only, never a field's value: they end up in logs and answers.
"""

from __future__ import annotations


class StripeIntegrationsError(Exception):
    """Base of every error that this package raises on purpose."""


class ConfigurationError(StripeIntegrationsError):
    """The deployment lacks a setting, or has one that can't be right."""


class SecretUnavailableError(StripeIntegrationsError):
    """The store of the secrets could not be asked, or refused for now."""


class StripeNotInstalledError(ConfigurationError):
    """An action needs Stripe, and the `stripe` extra is not installed."""


class RecordsNotStoredError(ConfigurationError):
    """An action needs records which this deployment leaves out (`STORED_RECORDS`)."""


class WrongModeError(StripeIntegrationsError):
    """A test-mode object or key met a live-mode deployment, or the other way round."""


class InvalidFieldError(StripeIntegrationsError):
    """A value was refused before anything was changed.

    Parameters
    ----------
    field : str
        Name of the field, as the caller passed it.
    reason : str
        Why, in words that don't repeat the value.
    """

    def __init__(self, field: str, reason: str) -> None:
        super().__init__(f"{field}: {reason}")
        self.field = field
        self.reason = reason


class MalformedRequestError(StripeIntegrationsError):
    """The request can't be read at all: not JSON, not an object, not UTF-8."""


class RequestTooLargeError(StripeIntegrationsError):
    """The body is larger than the API takes."""


class UnsupportedMediaTypeError(StripeIntegrationsError):
    """The body says that it is something other than JSON."""


class ForbiddenError(StripeIntegrationsError):
    """The caller may not see or change this user's customer."""


class SignatureVerificationError(StripeIntegrationsError):
    """A webhook's signature is missing, forged or too old."""


class CustomerNotFoundError(StripeIntegrationsError):
    """No customer is known here for this user, or under this Stripe id."""


class EventNotFoundError(StripeIntegrationsError):
    """No event of this id stands in the table."""


class CustomerBeingCreatedError(StripeIntegrationsError):
    """The customer of this user is being created at this moment."""


class CustomerSoftDeletedError(StripeIntegrationsError):
    """The record was soft-deleted; it stays as it is."""


class ConflictError(StripeIntegrationsError):
    """Others kept changing the same record; nothing was written."""


class StaleRecordError(ConflictError):
    """The record was changed after it was read; nothing was written."""


class DatabaseUnavailableError(StripeIntegrationsError):
    """DynamoDB could not be asked, or refused for now."""


class NewerSchemaError(StripeIntegrationsError):
    """A record has a shape that this release does not know: a later one has written it."""


class DatabaseRefusedError(StripeIntegrationsError):
    """DynamoDB refuses what was to be written, and will again: an item that is too large."""


class MessageNotSentError(StripeIntegrationsError):
    """A message to the dead-letter queue, or to the event bus, was not taken."""


class EventHandlerNotFoundError(StripeIntegrationsError):
    """A deployment's own event handler is not where it is said to be."""


class SideEffectFailedError(StripeIntegrationsError):
    """A handler of the deployment's own, or the event bus, failed; its cause says with what.

    The event had its effect; it is unfinished, and what follows on it is tried again.
    """


class OutOfTimeError(StripeIntegrationsError):
    """The invocation would end before what is to be done is done."""


class InvocationFailedError(StripeIntegrationsError):
    """An invocation failed by a fault of ours; its message is the kind of the error alone."""


class UnprocessableEventError(StripeIntegrationsError):
    """For event handlers to raise: this event can never be handled, however often it is tried."""


class StripeError(StripeIntegrationsError):
    """Stripe did not do what it was asked.

    Parameters
    ----------
    message : str
        What was asked, in ids only; Stripe's own message is left out, since it quotes values.
    status : int or None
        HTTP status of Stripe's answer; None where there was none.
    code : str or None
        Stripe's error code, such as ``resource_missing``.
    param : str or None
        Name of the request parameter that Stripe refused.
    request_id : str or None
        Stripe's id of the request, for its support and dashboard.
    """

    def __init__(
        self,
        message: str,
        *,
        status: int | None = None,
        code: str | None = None,
        param: str | None = None,
        request_id: str | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.param = param
        self.request_id = request_id


class StripeRefusedError(StripeError):
    """Stripe refused the request for what it says; the same request will be refused again."""


class StripeAccessError(StripeError):
    """Stripe refused the API key, or what the key may do."""


class StripeUnavailableError(StripeError):
    """Stripe can't be reached, is failing or asks to slow down; worth trying again later.

    `replayed` is true where Stripe gave a failure that it has kept under the idempotency key:
    the same key will get the same failure for as long as Stripe keeps it.
    """

    replayed: bool = False


class StripeObjectChangedError(StripeUnavailableError):
    """One customer changed while it was asked about; Stripe itself is well."""
