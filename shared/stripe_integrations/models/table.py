"""The table: the base of its records, and transactions of several items."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, ClassVar, Self, TypeVar

from botocore.awsrequest import AWSPreparedRequest, AWSResponse
from botocore.exceptions import ClientError
from pynamodb.attributes import DiscriminatorAttribute, NumberAttribute, UnicodeAttribute
from pynamodb.connection import Connection, TableConnection
from pynamodb.exceptions import (
    CancellationReason,
    DoesNotExist,
    PynamoDBException,
    TransactWriteError,
    UpdateError,
)
from pynamodb.expressions.condition import Condition
from pynamodb.expressions.update import Action
from pynamodb.indexes import GlobalSecondaryIndex, IncludeProjection
from pynamodb.models import Model
from pynamodb.transactions import TransactWrite

from stripe_integrations import errors
from stripe_integrations.adapters.aws import is_misconfigured
from stripe_integrations.context import current
from stripe_integrations.models.retry import attempts

SCHEMA_VERSION = 1
"""The schema version of new records."""
KNOWN_SCHEMA_VERSION = 1
"""The newest version that is read. While a change is rolled out it is one ahead of the written one,
so that neither a canary nor a rollback meets a record that it can't read."""

CONDITION_FAILED = "ConditionalCheckFailedException"

TRANSACTION_ITEMS = 100
TRANSACTION_BYTES = 4 * 1024 * 1024
"""The limits of one DynamoDB transaction."""

_STATES = ("kind", "state", "status", "is_active")
"""The attributes that the representation of a record has besides its key."""

_TRANSIENT_CODES = {
    "TransactionConflict",
    "ThrottlingError",
    "ProvisionedThroughputExceeded",
    "TransactionInProgressException",
}
_PERMANENT_CODES = {"ValidationException", "ItemCollectionSizeLimitExceededException"}
_MISCONFIGURED_CODES = {
    "AccessDeniedException",
    "ExpiredTokenException",
    "IncompleteSignatureException",
    "InvalidSignatureException",
    "MissingAuthenticationTokenException",
    "ResourceNotFoundException",
    "UnrecognizedClientException",
}
_ATTEMPTS = 6

R = TypeVar("R", bound="Record")


class CustomerIndex(GlobalSecondaryIndex[Any]):  # type: ignore[no-untyped-call]
    """The events that name one Stripe customer, by Stripe's `created`."""

    class Meta:
        index_name = "by_customer"
        projection = IncludeProjection(["record_type"])

    customer_id = UnicodeAttribute(hash_key=True)
    created = NumberAttribute(range_key=True)


class QueueIndex(GlobalSecondaryIndex[Any]):  # type: ignore[no-untyped-call]
    """The unfinished events by the time of their next attempt, the failed ones, and other work that
    is due: metadata to be written, erasures to be completed, children to be fetched."""

    class Meta:
        index_name = "by_queue"
        projection = IncludeProjection(
            [
                "record_type",
                "kind",
                "customer_id",
                "payment_method_id",
                "claimed_at",
                "received_at",
                "replayed_at",
            ]
        )

    queue = UnicodeAttribute(hash_key=True)
    next_attempt = NumberAttribute(range_key=True)


class CreatedIndex(GlobalSecondaryIndex[Any]):  # type: ignore[no-untyped-call]
    """The active customers by when Stripe created them: see `Customer.created_shard`."""

    class Meta:
        index_name = "by_created"
        projection = IncludeProjection(["record_type"])

    created_shard = UnicodeAttribute(hash_key=True)
    created = NumberAttribute(range_key=True)


class Record(Model):
    """Base class of the table's items; the table name is read from the settings on first use."""

    class Meta:
        table_name: str | None = None
        region: str | None = None
        connect_timeout_seconds = 1
        read_timeout_seconds = 2
        max_retry_attempts = 2

    pk = UnicodeAttribute(hash_key=True)
    sk = UnicodeAttribute(range_key=True)
    record_type = DiscriminatorAttribute()
    schema_version = NumberAttribute(null=True, default_for_new=SCHEMA_VERSION)

    COMPUTED_FLAGS: ClassVar[Mapping[str, str]] = {}
    """Boolean attributes that HTTP responses have besides the fields, with their descriptions."""

    by_created = CreatedIndex()
    by_customer = CustomerIndex()
    by_queue = QueueIndex()

    @classmethod
    def _get_connection(cls) -> TableConnection:
        # One for all records: each further connection costs its start-up time again.
        Record.Meta.table_name = current().settings.table_name
        return super(Record, Record)._get_connection()

    @classmethod
    def prepare_connection(cls) -> None:
        """Make the client, and what botocore makes on first use, by a call that is not sent."""
        events = cls.connection().client.meta.events
        hook = ("before-send.dynamodb.GetItem", _respond_with_nothing)
        events.register(*hook)
        try:
            cls.read_one("INIT", "INIT")
        finally:
            events.unregister(*hook)

    @classmethod
    def close_connections(cls) -> None:
        """Close the idle connections of the client, which opens others at its next call."""
        cls.connection().client.close()

    @classmethod
    def read_one(cls, pk: str, sk: str) -> Self | None:
        """The item under a key, strongly consistent; None where there is none."""
        try:
            return cls.get(pk, sk, consistent_read=True)
        except DoesNotExist:
            return None
        except PynamoDBException as error:
            raise unavailable(error) from error

    @classmethod
    def with_prefix(cls, pk: str, prefix: str, after: str | None = None) -> Iterator[Self]:
        """The items of a partition whose sort key has a prefix, in its order; strongly consistent.

        Parameters
        ----------
        pk : str
            The partition.
        prefix : str
            What the sort keys begin with, before ASCII characters.
        after : str, optional
            The sort key after which they begin.
        """
        # "~" is greater than every other character of these keys.
        keys = cls.sk.between(after or prefix, f"{prefix}~")
        try:
            for item in cls.query(pk, keys, consistent_read=True):
                if item.sk != after:
                    yield item
        except PynamoDBException as error:
            raise unavailable(error) from error

    def update_if(self, actions: list[Action], condition: Condition) -> bool:
        """Write it under a condition, and return whether that held; then all fields are current."""
        try:
            self.update(actions, condition)
        except UpdateError as error:
            if error_code(error) != CONDITION_FAILED:
                raise unavailable(error) from error
            return False
        return True

    def update_without_version(self, actions: list[Action], condition: Condition) -> Self | None:
        """Update the stored item on a condition, without raising its version, and return it.

        This object is not changed. Returns None if the condition does not hold.

        Raises
        ------
        StaleRecordError
            A transaction that writes the item is in progress.
        """
        try:
            response = self.table().update_item(
                self.pk,
                self.sk,
                actions=actions,
                condition=_with_known_schema(condition),
                return_values="ALL_NEW",
            )
        except UpdateError as error:
            code = error_code(error)
            if code == "TransactionConflictException":
                raise errors.StaleRecordError("a transaction is writing the item") from error
            if code != CONDITION_FAILED:
                raise unavailable(error) from error
            return None
        return self.from_raw_data(response["Attributes"])

    def __repr__(self) -> str:
        """Its key and its state: a record in a log or a traceback shows no personal data."""
        values = self.attribute_values
        state = [f"{name}={values[name]!r}" for name in _STATES if values.get(name) is not None]
        return f"{type(self).__name__}({', '.join([repr(self.pk), repr(self.sk), *state])})"

    @staticmethod
    def table() -> TableConnection:
        """The connection that all records share, bound to the table."""
        return Record._get_connection()

    @staticmethod
    def connection() -> Connection:
        """The connection that all records share."""
        return Record.table().connection

    # ---- a record of a later release is neither misread nor changed

    @classmethod
    def from_raw_data(cls, data: dict[str, Any]) -> Self:
        _refuse_newer(data)
        return super().from_raw_data(data)

    def update(
        self, actions: list[Action], condition: Condition | None = None, **settings: Any
    ) -> Any:
        return super().update(actions, _with_known_schema(condition), **settings)

    def get_update_kwargs_from_instance(
        self, actions: list[Action], condition: Condition | None = None, *rest: Any, **settings: Any
    ) -> dict[str, Any]:
        return super().get_update_kwargs_from_instance(
            actions, _with_known_schema(condition), *rest, **settings
        )

    def get_save_kwargs_from_instance(
        self, condition: Condition | None = None, *rest: Any, **settings: Any
    ) -> dict[str, Any]:
        return super().get_save_kwargs_from_instance(
            _with_known_schema(condition), *rest, **settings
        )

    def get_delete_kwargs_from_instance(
        self, condition: Condition | None = None, *rest: Any, **settings: Any
    ) -> dict[str, Any]:
        return super().get_delete_kwargs_from_instance(
            _with_known_schema(condition), *rest, **settings
        )


def _refuse_newer(item: Mapping[str, Any]) -> None:
    """Refuse an item of an unknown schema version; without a number it has the first one."""
    version = item.get("schema_version", {}).get("N", "1")
    if int(version) > KNOWN_SCHEMA_VERSION:
        raise errors.NewerSchemaError(f"a record has schema {version}")


def _with_known_schema(condition: Condition | None) -> Condition:
    """Extend a condition: it also fails where a record of a newer schema version is stored.

    A write that was decided without a read, or before a later release wrote, has no effect then.
    """
    version = Record.schema_version
    known: Condition = version.does_not_exist() | (version <= KNOWN_SCHEMA_VERSION)
    return known if condition is None else condition & known


class ConditionFailedError(Exception):
    """A condition of a transaction did not hold: nothing of it was written.

    Parameters
    ----------
    reasons : list
        One entry per item, None where its condition held; with the stored item where the write
        asked for it. Condition checks come first, then deletions, puts and updates.
    """

    def __init__(self, reasons: list[CancellationReason | None]) -> None:
        super().__init__("a condition of the transaction did not hold")
        self.reasons = reasons

    def old_item(self, record: R) -> R | None:
        """The stored item that a record would have replaced, where its condition did not hold.

        It is found by its key: PynamoDB sends the deletions of a transaction before its puts.
        """
        key = {"pk": {"S": record.pk}, "sk": {"S": record.sk}}
        items = (reason.raw_item for reason in self.reasons if reason and reason.raw_item)
        found = next((item for item in items if key.items() <= item.items()), None)
        return None if found is None else type(record).from_raw_data(found)


@contextmanager
def stale_if_changed(message: str) -> Iterator[None]:
    """Raise `StaleRecordError` where a condition of a transaction does not hold."""
    try:
        yield
    except ConditionFailedError as error:
        raise errors.StaleRecordError(message) from error


def transact(compose: Callable[[TransactWrite], None]) -> None:
    """Write items together, all or none.

    Repeats after a conflict with another transaction and after throttling: nothing was written
    then, and the conditions still decide.

    Parameters
    ----------
    compose : callable
        Adds the items to the transaction that it is given; called again for each attempt.

    Raises
    ------
    ConditionFailedError
        A condition did not hold.
    DatabaseRefusedError
        DynamoDB refuses an item, and will refuse it again.
    DatabaseUnavailableError
        DynamoDB refused for now, or could not be reached; without a response the items may have
        been written.
    """
    for _ in attempts(_ATTEMPTS):
        try:
            with TransactWrite(connection=Record.connection()) as transaction:
                compose(transaction)
        except TransactWriteError as error:
            reasons = error.cancellation_reasons
            if any(reason and reason.code == "ConditionalCheckFailed" for reason in reasons):
                raise ConditionFailedError(reasons) from error
            codes = {reason.code for reason in reasons if reason}
            if "ValidationError" in codes:
                raise errors.DatabaseRefusedError("DynamoDB: ValidationError") from error
            if not (codes or {error_code(error) or ""}) <= _TRANSIENT_CODES:
                raise unavailable(error) from error
        else:
            return
    raise errors.DatabaseUnavailableError("DynamoDB refused the transaction every time")


def unavailable(error: PynamoDBException) -> errors.StripeIntegrationsError:
    """Translate a failed call to DynamoDB: its error code, without its message."""
    code = error_code(error)
    message = f"DynamoDB: {code or type(error.cause).__name__}"
    if code in _PERMANENT_CODES:
        return errors.DatabaseRefusedError(message)
    if code in _MISCONFIGURED_CODES or is_misconfigured(error.cause):
        return errors.DatabaseMisconfiguredError(message)
    if code is None:
        return errors.DatabaseUnreachableError(message)
    return errors.DatabaseUnavailableError(message)


class _Nothing:
    """The body of a response that has no item."""

    def stream(self) -> Iterator[bytes]:
        yield b"{}"


def _respond_with_nothing(request: AWSPreparedRequest, **_: Any) -> AWSResponse:
    return AWSResponse(request.url, 200, {}, _Nothing())


def error_code(error: PynamoDBException) -> str | None:
    """DynamoDB's code of an error; None without a response."""
    if not isinstance(error.cause, ClientError):
        return None
    code: str = error.cause.response["Error"]["Code"]
    return code
