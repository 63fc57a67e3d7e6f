"""All errors that this package raises on purpose.

::

    StripeIntegrationsError
    ├── ConfigurationError
    │   ├── RecordsNotStoredError
    │   └── StripeNotInstalledError
    ├── SecretUnavailableError
    ├── WrongModeError
    ├── InvalidFieldError
    │   └── ForbiddenFieldError
    ├── MalformedRequestError
    ├── RequestTooLargeError
    ├── UnsupportedMediaTypeError
    ├── ForbiddenError
    ├── SignatureVerificationError
    ├── CustomerNotFoundError
    ├── CustomerBeingCreatedError
    ├── CustomerSoftDeletedError
    ├── CustomerErasedError
    ├── CustomerOfAnotherUserError
    ├── UserHasAnotherCustomerError
    ├── TakeOverRequiredError
    ├── RunInProgressError
    ├── RunNotFoundError
    ├── MappingRefusedError
    ├── RunNotFinishedError
    ├── SweepMissingError
    ├── OtherAccountError
    ├── CustomerExistsError
    ├── EventNotFoundError
    ├── EventHandlerNotFoundError
    ├── UnprocessableEventError
    ├── ApplyFailedError
    ├── SideEffectFailedError
    ├── MessageNotSentError
    ├── StorageError
    ├── OutOfTimeError
    ├── InvocationFailedError
    ├── ConflictError
    │   └── StaleRecordError
    ├── DatabaseUnavailableError
    │   ├── DatabaseUnreachableError
    │   └── DatabaseMisconfiguredError
    ├── DatabaseRefusedError
    ├── NewerSchemaError
    └── StripeError
        ├── StripeRefusedError
        ├── StripeKeyReusedError
        ├── StripeAccessError
        └── StripeUnavailableError
            ├── StripeObjectChangedError
            └── StripeObjectLockedError

Messages contain ids and field names only, never a field's value: they appear in logs and responses.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Self


class StripeIntegrationsError(Exception):
    """Base class of all of them."""


class ConfigurationError(StripeIntegrationsError):
    """A setting of the deployment is missing or invalid."""


class SecretUnavailableError(StripeIntegrationsError):
    """The secret store could not be reached, or refused for now."""


class StripeNotInstalledError(ConfigurationError):
    """An action calls Stripe, and the `stripe` extra is not installed."""


class RecordsNotStoredError(ConfigurationError):
    """An action needs records that this deployment does not store (`STORED_RECORDS`)."""


class WrongModeError(StripeIntegrationsError):
    """A test-mode object or key was used in a live-mode deployment, or the reverse."""


class InvalidFieldError(StripeIntegrationsError):
    """Values were refused before anything was written.

    Parameters
    ----------
    field : str
        Name of the field, as the caller passed it; of the first one if several were refused.
    reason : str
        Why, without the value.
    *others : tuple of str
        Name and reason of each further field.
    """

    def __init__(self, field: str, reason: str, *others: tuple[str, str]) -> None:
        self.field = field
        self.reason = reason
        self.field_errors = ((field, reason), *others)
        """Name and reason of every refused field."""
        super().__init__("; ".join(f"{name}: {why}" for name, why in self.field_errors))


class ForbiddenFieldError(InvalidFieldError):
    """The caller may not set a field: a user's token can't change money fields, for example."""


class MalformedRequestError(StripeIntegrationsError):
    """The request can't be parsed: not JSON, not an object, not UTF-8."""


class RequestTooLargeError(StripeIntegrationsError):
    """The body is larger than the API takes."""


class UnsupportedMediaTypeError(StripeIntegrationsError):
    """The content type of the body is not JSON."""


class ForbiddenError(StripeIntegrationsError):
    """The caller may not do this: it is not authorized, or the customer is another user's."""


class SignatureVerificationError(StripeIntegrationsError):
    """A webhook's signature is missing, forged or too old."""


class CustomerNotFoundError(StripeIntegrationsError):
    """No customer is stored for this user, or with this Stripe id."""


class RunInProgressError(StripeIntegrationsError):
    """Another run through the Stripe account is in progress: there is one at a time."""


class RunNotFinishedError(StripeIntegrationsError):
    """The run is not a verification that has finished, so there is no report to repair from."""


class RunNotFoundError(StripeIntegrationsError):
    """There is no such run through the Stripe account."""


class MappingRefusedError(StripeIntegrationsError):
    """A mapping of users to customers is malformed: nothing was assigned by it."""


class SweepMissingError(StripeIntegrationsError):
    """Stripe's events were never swept, so that a run could miss a change during it."""


class OtherAccountError(StripeIntegrationsError):
    """The API key belongs to another Stripe account than the stored customers."""


class EventNotFoundError(StripeIntegrationsError):
    """No event with this id is stored."""


class CustomerBeingCreatedError(StripeIntegrationsError):
    """The customer of this user is being created."""


class CustomerSoftDeletedError(StripeIntegrationsError):
    """The record is soft-deleted, and a soft-deleted record never changes."""


class CustomerErasedError(StripeIntegrationsError):
    """The Stripe customer was erased: nothing of it is stored again."""


class CustomerOfAnotherUserError(StripeIntegrationsError):
    """The Stripe customer is another user's; nothing was written."""


class UserHasAnotherCustomerError(StripeIntegrationsError):
    """The user has another customer than the one to adopt; nothing was written."""


class TakeOverRequiredError(StripeIntegrationsError):
    """The metadata of the customer names another deployment, or another user.

    It is adopted only with `take_over`; nothing was written.
    """


class CustomerExistsError(StripeIntegrationsError):
    """Stripe has customers with the e-mail of the one to create; nothing was created.

    Parameters
    ----------
    message : str
        Without ids: it is returned to users too.
    stripe_ids : sequence of str
        The newest of these customers, at most 100.
    """

    def __init__(self, message: str, stripe_ids: Sequence[str] = ()) -> None:
        self.stripe_ids = tuple(stripe_ids)
        super().__init__(message)


class ConflictError(StripeIntegrationsError):
    """Concurrent writers changed the same record every time; nothing was written."""


class StaleRecordError(ConflictError):
    """The record was changed after it was read; nothing was written."""


class DatabaseUnavailableError(StripeIntegrationsError):
    """DynamoDB could not be reached, or refused for now."""


class DatabaseUnreachableError(DatabaseUnavailableError):
    """DynamoDB's endpoint can't be reached, or did not respond."""


class DatabaseMisconfiguredError(DatabaseUnavailableError):
    """DynamoDB can't be used as it is set up: credentials, permissions, region or table."""


class NewerSchemaError(StripeIntegrationsError):
    """A record has the schema version of a later release."""


class DatabaseRefusedError(StripeIntegrationsError):
    """DynamoDB refuses an item, and will refuse it again: it is too large, for example."""


class MessageNotSentError(StripeIntegrationsError):
    """The dead-letter queue, the event bus or the erasure log did not accept a message."""


class StorageError(StripeIntegrationsError):
    """S3 did not store or return an object."""


class EventHandlerNotFoundError(StripeIntegrationsError):
    """A custom event handler can't be imported from where `HANDLERS` declares it.

    The module is missing, or raises an error when it is imported.
    """


class ApplyFailedError(StripeIntegrationsError, ExceptionGroup[Exception]):
    """Events of a batch were not applied; `exceptions` has each failure.

    Every failure is recorded with its events: they have a retry scheduled, or are dead letters.
    """

    def derive(self, excs: Sequence[Exception]) -> Self:  # type: ignore[override]
        return type(self)(self.message, excs)


class SideEffectFailedError(StripeIntegrationsError):
    """A custom handler or the event bus failed for an event; the cause is chained.

    The event took effect. It is unfinished, and its side effects will be retried.
    """


class OutOfTimeError(StripeIntegrationsError):
    """The invocation would end before the work is done."""


class InvocationFailedError(StripeIntegrationsError):
    """An invocation failed unexpectedly; the message is the type of the error alone."""


class UnprocessableEventError(StripeIntegrationsError):
    """Raised by custom handlers: the event can never be handled, however often it is retried.

    Its text is stored as the event's reason, sent to the dead-letter queue and logged: up to 1,000
    characters, which must contain no personal data.
    """


class StripeError(StripeIntegrationsError):
    """A call to Stripe failed.

    Parameters
    ----------
    message : str
        What was called, in ids only; Stripe's own message is left out, since it quotes values.
    status : int or None
        HTTP status of Stripe's response; None without a response.
    code : str or None
        Stripe's error code, such as ``resource_missing``.
    param : str or None
        Name of the request parameter that Stripe refused.
    request_id : str or None
        Stripe's id of the request, as its dashboard and support use it.
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
    """Stripe refused the request; the same request will be refused again."""


class StripeKeyReusedError(StripeError):
    """An idempotency key was used with other parameters before."""


class StripeAccessError(StripeError):
    """Stripe refused the API key, or its permissions."""


class StripeUnavailableError(StripeError):
    """Stripe can't be reached, fails or limits the rate; a retry may succeed.

    `replayed` is true for a failure that Stripe has stored for the idempotency key: the same key
    will get the same failure for as long as Stripe stores it.
    """

    replayed: bool = False


class StripeObjectLockedError(StripeUnavailableError):
    """Another request holds Stripe's lock on the object: 429 with the code ``lock_timeout``."""


class StripeObjectChangedError(StripeUnavailableError):
    """An object changed between two calls about it; Stripe itself is available."""


def is_permanent(error: BaseException) -> bool:
    """Return whether an error will be raised again, however often the work is retried."""
    return isinstance(error, DatabaseRefusedError | UnprocessableEventError)


def is_internal(error: BaseException) -> bool:
    """Return whether an error is a bug or a wrong setting, and not a failure of Stripe or AWS."""
    if isinstance(error, StripeIntegrationsError):
        return isinstance(
            error, ConfigurationError | DatabaseMisconfiguredError | EventHandlerNotFoundError
        )
    return True


def is_stripe_outage(error: BaseException) -> bool:
    """Return whether no call to Stripe can succeed now, for whichever object."""
    outages = (
        ConfigurationError,
        SecretUnavailableError,
        StripeAccessError,
        StripeUnavailableError,
    )
    of_one_object = (StripeObjectChangedError, StripeObjectLockedError)
    return isinstance(error, outages) and not isinstance(error, of_one_object)
