"""DynamoDB in memory, behind its JSON protocol."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from simulation.database import reads, transactions
from simulation.database.bindings import Body, Expressions
from simulation.database.errors import Answer, Json, RefusedError, error_answer, invalid
from simulation.database.own_stream import Stream
from simulation.database.table import Table, missing_table
from simulation.database.values import Item
from simulation.database.writes import (
    Write,
    prepare_delete,
    prepare_put,
    prepare_update,
    return_values,
)

_REGION = "eu-west-1"
_ACCOUNT = "123456789012"
_MOST_BATCH_WRITES = 25
_MOST_BATCH_READS = 100


class Database:
    """Tables in memory, and the answers that DynamoDB gives about them.

    Everything it does depends on the requests, the clock and the delays alone. Answers share
    nothing with what is stored. One thread at a time.

    Parameters
    ----------
    clock : callable
        Gives the time in Unix seconds.
    index_delay : callable, optional
        Gives the seconds after which the next change shows in the indexes; where it is left out,
        indexes are as consistent as the table.
    stream_shards : int
        How many shards the stream of a table has.

    Examples
    --------
    >>> database = Database(clock=lambda: 1_800_000_000.0)
    >>> database.request("ListTables", {}).body
    {'TableNames': []}
    """

    def __init__(
        self,
        clock: Callable[[], float],
        *,
        index_delay: Callable[[], float] | None = None,
        stream_shards: int = 2,
    ) -> None:
        self._clock = clock
        self._index_delay = index_delay
        self._stream_shards = stream_shards
        self._tables: dict[str, Table] = {}
        self._tokens = transactions.Tokens(clock)
        self._operations: dict[str, Callable[[Body], Json]] = {
            "BatchGetItem": self._batch_get_item,
            "BatchWriteItem": self._batch_write_item,
            "CreateTable": self._create_table,
            "DeleteItem": self._delete_item,
            "DeleteTable": self._delete_table,
            "DescribeTable": self._describe_table,
            "DescribeTimeToLive": self._describe_time_to_live,
            "GetItem": self._get_item,
            "ListTables": self._list_tables,
            "PutItem": self._put_item,
            "Query": lambda body: reads.query(self._table(body), body),
            "Scan": lambda body: reads.scan(self._table(body), body),
            "TransactGetItems": self._transact_get_items,
            "TransactWriteItems": self._transact_write_items,
            "UpdateItem": self._update_item,
            "UpdateTimeToLive": self._update_time_to_live,
        }

    def request(self, operation: str, body: Mapping[str, Any]) -> Answer:
        """Answer one request.

        Parameters
        ----------
        operation : str
            The operation's name, such as ``PutItem``.
        body : mapping
            The request, as the JSON protocol has it.

        Returns
        -------
        Answer
            The answer, an error too.
        """
        carry_out = self._operations.get(operation)
        if carry_out is None:
            return error_answer("UnknownOperationException", f"{operation} is not simulated")
        try:
            return Answer(200, carry_out(body))
        except RefusedError as error:
            return error_answer(error.kind, error.message, **error.members)

    def stream(self, table_name: str) -> Stream:
        """The change log of a table.

        Raises
        ------
        LookupError
            There is no such table, or it has no stream.
        """
        stream = self._tables[table_name].stream
        if stream is None:
            raise LookupError(f"{table_name} has no stream")
        return stream

    def expire(self, table_name: str) -> int:
        """Delete the items of a table whose time to live is over; their number.

        DynamoDB itself does so within a few days of an item's time.
        """
        table = self._tables[table_name]
        expired = list(table.expired())
        for item in expired:
            table.replace(table.schema.key_of(item), item, None, 0)
        return len(expired)

    # ---- tables

    def _table(self, body: Body) -> Table:
        name = body.get("TableName")
        if not isinstance(name, str):
            raise invalid("The parameter 'TableName' is required but was not present")
        table = self._tables.get(name)
        if table is None:
            raise missing_table()
        return table

    def _create_table(self, body: Body) -> Json:
        name = body["TableName"]
        if name in self._tables:
            raise RefusedError("ResourceInUseException", "Cannot create preexisting table")
        arn = f"arn:aws:dynamodb:{_REGION}:{_ACCOUNT}:table/{name}"
        table = Table(
            {**body, "TableArn": arn, "CreationDateTime": self._clock()},
            clock=self._clock,
            index_delay=self._index_delay,
            stream=self._new_stream(arn, body.get("StreamSpecification") or {}),
        )
        self._tables[name] = table
        return {"TableDescription": table.describe()}

    def _new_stream(self, table_arn: str, specification: Body) -> Stream | None:
        view_type = specification.get("StreamViewType")
        if view_type is None or specification.get("StreamEnabled") is False:
            return None
        arn = f"{table_arn}/stream/2027-01-01T00:00:00.000"
        return Stream(arn, _REGION, view_type, self._stream_shards)

    def _delete_table(self, body: Body) -> Json:
        table = self._table(body)
        del self._tables[table.name]
        return {"TableDescription": {**table.describe(), "TableStatus": "DELETING"}}

    def _describe_table(self, body: Body) -> Json:
        return {"Table": self._table(body).describe()}

    def _list_tables(self, body: Body) -> Json:  # noqa: ARG002
        return {"TableNames": sorted(self._tables)}

    def _update_time_to_live(self, body: Body) -> Json:
        specification = body["TimeToLiveSpecification"]
        name = specification["AttributeName"] if specification["Enabled"] else None
        self._table(body).time_to_live = name
        return {"TimeToLiveSpecification": specification}

    def _describe_time_to_live(self, body: Body) -> Json:
        name = self._table(body).time_to_live
        if name is None:
            return {"TimeToLiveDescription": {"TimeToLiveStatus": "DISABLED"}}
        return {"TimeToLiveDescription": {"TimeToLiveStatus": "ENABLED", "AttributeName": name}}

    # ---- one item

    def _get_item(self, body: Body) -> Json:
        return self._read_one(self._table(body), body)

    def _read_one(self, table: Table, body: Body) -> Json:
        expressions = Expressions(body)
        projection = expressions.projection()
        expressions.refuse_unused()
        item = table.get(table.schema.read_key(body.get("Key")))
        return {} if item is None else {"Item": reads.shown(item, projection)}

    def _put_item(self, body: Body) -> Json:
        return self._write("PutItem", prepare_put, body)

    def _update_item(self, body: Body) -> Json:
        return self._write("UpdateItem", prepare_update, body)

    def _delete_item(self, body: Body) -> Json:
        return self._write("DeleteItem", prepare_delete, body)

    def _write(self, operation: str, prepare: Callable[[Table, Body], Write], body: Body) -> Json:
        wanted = return_values(operation, body)
        write = prepare(self._table(body), body)
        outcome = write.decide(write.old())
        outcome.commit()
        attributes = outcome.attributes(wanted)
        return {} if attributes is None else {"Attributes": attributes}

    # ---- several items

    def _batch_get_item(self, body: Body) -> Json:
        asked = _requests(body)
        if sum(len(request.get("Keys", ())) for request in asked.values()) > _MOST_BATCH_READS:
            raise invalid("Too many items requested for the BatchGetItem call")
        found: dict[str, list[Item]] = {}
        for name, request in asked.items():
            table = self._table({"TableName": name})
            keys = request.get("Keys") or []
            if not keys:
                raise invalid("Keys must have length greater than or equal to 1")
            _refuse_twice(table, [table.schema.read_key(key) for key in keys])
            shared = {each: value for each, value in request.items() if each != "Keys"}
            answers = [self._read_one(table, {**shared, "Key": key}) for key in keys]
            found[name] = [answer["Item"] for answer in answers if answer]
        return {"Responses": found, "UnprocessedKeys": {}}

    def _batch_write_item(self, body: Body) -> Json:
        asked = _requests(body)
        if not 1 <= sum(map(len, asked.values())) <= _MOST_BATCH_WRITES:
            raise invalid("Too many items requested for the BatchWriteItem call")
        writes: list[Write] = []
        for name, requests in asked.items():
            table = self._table({"TableName": name})
            of_table = [_prepare_one(table, request) for request in requests]
            _refuse_twice(table, [write.key for write in of_table])
            writes += of_table
        for outcome in [write.decide(write.old()) for write in writes]:
            outcome.commit()
        return {"UnprocessedItems": {}}

    def _transact_get_items(self, body: Body) -> Json:
        answers = []
        keys = []
        for action in transactions.read_actions(body):
            get = action.get("Get")
            if get is None:
                raise invalid("A TransactGetItem must contain Get")
            table = self._table(get)
            keys.append((table, table.schema.read_key(get.get("Key"))))
            answers.append(self._read_one(table, get))
        transactions.refuse_twice(keys)
        return {"Responses": answers}

    def _transact_write_items(self, body: Body) -> Json:
        writes = transactions.read_writes(self._table, body)
        token = body.get("ClientRequestToken")
        if token is not None and self._tokens.is_repetition(token, body):
            return {}
        for outcome in transactions.decide_all(writes):
            outcome.commit()
        if token is not None:
            self._tokens.keep(token, body)
        return {}


def _requests(body: Body) -> dict[str, Any]:
    asked: dict[str, Any] = body.get("RequestItems") or {}
    if not asked:
        raise invalid("RequestItems must have length greater than or equal to 1")
    return asked


def _refuse_twice(table: Table, keys: Iterable[Item]) -> None:
    places = [table.schema.tokens(key) for key in keys]
    if len(set(places)) != len(places):
        raise invalid("Provided list of item keys contains duplicates")


def _prepare_one(table: Table, request: Body) -> Write:
    match request:
        case {"PutRequest": put}:
            return prepare_put(table, put)
        case {"DeleteRequest": delete}:
            return prepare_delete(table, delete)
    raise invalid("A WriteRequest must contain PutRequest or DeleteRequest")
