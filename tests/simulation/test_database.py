"""The simulation's database: what the differential test can't see, and its transport."""

from __future__ import annotations

from typing import Any

import boto3
import pytest
from botocore.config import Config
from botocore.exceptions import ClientError, ReadTimeoutError

from simulation.database import Answer, Database, error_answer
from simulation.database.transport import answering

Json = dict[str, Any]

START = 1_800_000_000.0
TABLE: Json = {
    "TableName": "records",
    "BillingMode": "PAY_PER_REQUEST",
    "AttributeDefinitions": [
        {"AttributeName": name, "AttributeType": kind}
        for name, kind in (("pk", "S"), ("sk", "S"), ("g", "S"))
    ],
    "KeySchema": [
        {"AttributeName": "pk", "KeyType": "HASH"},
        {"AttributeName": "sk", "KeyType": "RANGE"},
    ],
    "GlobalSecondaryIndexes": [
        {
            "IndexName": "by_g",
            "KeySchema": [{"AttributeName": "g", "KeyType": "HASH"}],
            "Projection": {"ProjectionType": "KEYS_ONLY"},
        }
    ],
    "StreamSpecification": {"StreamEnabled": True, "StreamViewType": "NEW_AND_OLD_IMAGES"},
}


class World:
    """A database with one table, and its clock."""

    def __init__(self, **options: Any) -> None:
        self.time = START
        self.database = Database(lambda: self.time, **options)
        self.ask("CreateTable", **TABLE)

    def ask(self, operation: str, **body: Any) -> Json:
        """An answer that is none of an error."""
        answer = self.database.request(operation, {"TableName": "records", **body})
        assert answer.status == 200, answer.body
        return answer.body

    def refused(self, operation: str, **body: Any) -> Json:
        """The body of an error, with its type cut short."""
        answer = self.database.request(operation, {"TableName": "records", **body})
        assert answer.status == 400, answer.body
        return {**answer.body, "__type": answer.body["__type"].rpartition("#")[2]}

    def put(self, pk: str = "p", sk: str = "s", **values: Json) -> None:
        """Put an item."""
        self.ask("PutItem", Item={"pk": {"S": pk}, "sk": {"S": sk}, **values})

    def indexed(self, g: str = "g") -> list[Json]:
        """What the index shows."""
        items: list[Json] = self.ask(
            "Query",
            IndexName="by_g",
            KeyConditionExpression="g = :g",
            ExpressionAttributeValues={":g": {"S": g}},
        )["Items"]
        return items


@pytest.fixture
def world() -> World:
    return World()


def key(pk: str = "p", sk: str = "s") -> Json:
    return {"pk": {"S": pk}, "sk": {"S": sk}}


# ---- answers and what is stored


def test_answers_share_nothing_with_what_is_stored(world: World) -> None:
    item = {**key(), "m": {"M": {"l": {"L": [{"S": "a"}]}}}}
    world.ask("PutItem", Item=item)
    item["m"]["M"]["l"]["L"].append({"S": "b"})
    read = world.ask("GetItem", Key=key())["Item"]
    read["m"]["M"]["l"]["L"].clear()
    (record,) = world.database.stream("records").read(shard_of(world))
    record["dynamodb"]["NewImage"]["m"]["M"].clear()
    assert world.ask("GetItem", Key=key())["Item"]["m"] == {"M": {"l": {"L": [{"S": "a"}]}}}


def shard_of(world: World) -> int:
    """The one shard that holds records."""
    shards = world.database.stream("records").shards
    (found,) = [number for number, records in enumerate(shards) if records]
    return found


@pytest.mark.parametrize(
    ("sent", "kept"),
    [
        ("1.0", "1"),
        ("007", "7"),
        ("1E3", "1000"),
        ("-0", "0"),
        (".5", "0.5"),
        ("1e-3", "0.001"),
        ("9" * 38, "9" * 38),
    ],
)
def test_a_number_is_kept_as_its_value(world: World, sent: str, kept: str) -> None:
    world.put(n={"N": sent})
    assert world.ask("GetItem", Key=key())["Item"]["n"] == {"N": kept}


@pytest.mark.parametrize("wrong", ["", "x", "1e126", "1e-131", "1" * 39, "0x1", "NaN", "1_0"])
def test_what_is_no_number_is_refused(world: World, wrong: str) -> None:
    error = world.refused("PutItem", Item={**key(), "n": {"N": wrong}})
    assert error["__type"] == "ValidationException"


@pytest.mark.parametrize("wrong", [{"S": 5}, {"B": "?"}, {"L": {}}, "text", {"BOOL": "true"}])
def test_what_is_no_value_at_all_can_not_be_read(world: World, wrong: Any) -> None:
    error = world.refused("PutItem", Item={**key(), "n": wrong})
    assert error["__type"] == "SerializationException"


def test_an_item_holds_400_kilobytes(world: World) -> None:
    room = 400 * 1024 - len("pk" + "p" + "sk" + "s" + "a")
    world.put(a={"S": "x" * room})
    error = world.refused("PutItem", Item={**key(), "a": {"S": "x" * (room + 1)}})
    assert error["__type"] == "ValidationException"


def test_a_page_ends_after_a_megabyte(world: World) -> None:
    for number in range(6):
        world.put(sk=str(number), a={"S": "x" * 300_000})
    query = {
        "KeyConditionExpression": "pk = :p",
        "ExpressionAttributeValues": {":p": {"S": "p"}},
        "ProjectionExpression": "sk",
    }
    first = world.ask("Query", **query)
    assert [item["sk"]["S"] for item in first["Items"]] == ["0", "1", "2", "3"]
    second = world.ask("Query", **query, ExclusiveStartKey=first["LastEvaluatedKey"])
    assert [item["sk"]["S"] for item in second["Items"]] == ["4", "5"]
    assert "LastEvaluatedKey" not in second


def test_a_scan_by_pages_sees_every_item_once(world: World) -> None:
    for number in range(20):
        world.put(f"p{number % 7}", str(number), g={"S": "g"})
    for index in ({}, {"IndexName": "by_g"}):
        seen: list[Json] = []
        start: Json = {}
        while True:
            page = world.ask("Scan", Limit=3, **index, **start)
            seen += page["Items"]
            if "LastEvaluatedKey" not in page:
                break
            start = {"ExclusiveStartKey": page["LastEvaluatedKey"]}
        assert len({(item["pk"]["S"], item["sk"]["S"]) for item in seen}) == len(seen) == 20


def test_segments_of_a_scan_are_the_whole_table(world: World) -> None:
    for number in range(20):
        world.put(f"p{number}")
    counts = [world.ask("Scan", Segment=segment, TotalSegments=3)["Count"] for segment in range(3)]
    assert sum(counts) == 20


# ---- transactions


def test_a_token_makes_a_transaction_idempotent_for_ten_minutes(world: World) -> None:
    add = {
        "Update": {
            "TableName": "records",
            "Key": key(),
            "UpdateExpression": "ADD n :one",
            "ExpressionAttributeValues": {":one": {"N": "1"}},
        }
    }
    request = {"TransactItems": [add], "ClientRequestToken": "token"}
    for elapsed, total in ((0, "1"), (599, "1"), (601, "2")):
        world.time = START + elapsed
        world.ask("TransactWriteItems", **request)
        assert world.ask("GetItem", Key=key())["Item"]["n"] == {"N": total}
    other = {"TransactItems": [{"Delete": {"TableName": "records", "Key": key()}}]}
    error = world.refused("TransactWriteItems", **other, ClientRequestToken="token")
    # checkov:skip=CKV_SECRET_6:the name of an error
    assert error["__type"] == "IdempotentParameterMismatchException"


def test_a_cancelled_transaction_says_why_and_writes_nothing(world: World) -> None:
    world.put("there")
    unless_there = "attribute_not_exists(pk)"
    puts = [
        {
            "Put": {
                "TableName": "records",
                "Item": key(pk),
                "ConditionExpression": unless_there,
                "ReturnValuesOnConditionCheckFailure": "ALL_OLD",
            }
        }
        for pk in ("new", "there")
    ]
    error = world.refused("TransactWriteItems", TransactItems=puts)
    assert error["__type"] == "TransactionCanceledException"
    none, failed = error["CancellationReasons"]
    assert none == {"Code": "None"}
    assert (failed["Code"], failed["Item"]) == ("ConditionalCheckFailed", key("there"))
    assert world.ask("GetItem", Key=key("new")) == {}
    assert len(world.database.stream("records").records) == 1


def test_a_transaction_may_not_name_an_item_twice(world: World) -> None:
    delete = {"Delete": {"TableName": "records", "Key": key()}}
    error = world.refused("TransactWriteItems", TransactItems=[delete, delete])
    assert error["__type"] == "ValidationException"


# ---- streams


def test_every_change_is_in_the_stream_and_what_changes_nothing_is_not(world: World) -> None:
    world.put(a={"S": "1"})
    world.put(a={"S": "1"})
    world.put(a={"S": "2"})
    world.ask("DeleteItem", Key=key())
    world.ask("DeleteItem", Key=key())
    records = world.database.stream("records").records
    assert [record["eventName"] for record in records] == ["INSERT", "MODIFY", "REMOVE"]
    insert, modify, remove = [record["dynamodb"] for record in records]
    assert insert["Keys"] == key()
    assert "OldImage" not in insert
    assert (modify["OldImage"]["a"], modify["NewImage"]["a"]) == ({"S": "1"}, {"S": "2"})
    assert "NewImage" not in remove
    numbers = [int(record["dynamodb"]["SequenceNumber"]) for record in records]
    assert numbers == sorted(set(numbers))


def test_all_changes_of_a_partition_are_in_one_shard_in_order() -> None:
    world = World(stream_shards=3)
    for number in range(30):
        world.put(f"p{number % 10}", str(number))
    stream = world.database.stream("records")
    assert sum(map(len, stream.shards)) == 30
    for number in range(10):
        places = [
            (shard, record["dynamodb"]["Keys"]["sk"]["S"])
            for shard, records in enumerate(stream.shards)
            for record in records
            if record["dynamodb"]["Keys"]["pk"]["S"] == f"p{number}"
        ]
        (shard,) = {shard for shard, _ in places}
        assert places == [(shard, str(number + tens)) for tens in (0, 10, 20)]


def test_what_expired_is_deleted_on_demand(world: World) -> None:
    ttl = {"AttributeName": "ttl", "Enabled": True}
    world.ask("UpdateTimeToLive", TimeToLiveSpecification=ttl)
    world.put("old", ttl={"N": str(int(START) - 1)})
    world.put("young", ttl={"N": str(int(START) + 1)})
    world.put("lasting")
    assert world.database.expire("records") == 1
    assert world.ask("Scan")["Count"] == 2
    assert world.database.stream("records").records[-1]["eventName"] == "REMOVE"


# ---- indexes


def test_an_index_shows_a_change_after_its_delay() -> None:
    world = World(index_delay=lambda: 2.0)
    world.put(g={"S": "g"})
    assert world.indexed() == []
    world.time += 2
    assert world.indexed() == [{**key(), "g": {"S": "g"}}]
    world.ask("DeleteItem", Key=key())
    assert len(world.indexed()) == 1
    world.time += 2
    assert world.indexed() == []


def test_an_index_never_goes_back_to_an_older_version() -> None:
    delays = iter([10.0, 1.0])
    world = World(index_delay=lambda: next(delays))
    world.put(g={"S": "first"})
    world.put(g={"S": "second"})
    world.time += 5
    assert world.indexed("second") == []
    world.time += 5
    assert (world.indexed("first"), len(world.indexed("second"))) == ([], 1)


def test_an_index_is_not_read_consistently(world: World) -> None:
    error = world.refused(
        "Query",
        IndexName="by_g",
        ConsistentRead=True,
        KeyConditionExpression="g = :g",
        ExpressionAttributeValues={":g": {"S": "g"}},
    )
    assert error["__type"] == "ValidationException"


# ---- the transport


@pytest.fixture
def client(aws: None) -> Any:
    """A client whose requests go nowhere by themselves."""
    return boto3.client(
        "dynamodb",
        endpoint_url="http://dynamodb.simulated",
        config=Config(retries={"total_max_attempts": 2, "mode": "standard"}),
    )


def test_a_client_is_answered_by_the_database(client: Any, world: World) -> None:
    with answering(client, world.database.request):
        item = {**key(), "b": {"B": b"\0\xff"}, "n": {"NS": ["2", "1"]}}
        client.put_item(TableName="records", Item=item)
        read = client.get_item(TableName="records", Key=key())["Item"]
        assert read == {**item, "n": {"NS": ["1", "2"]}}
        with pytest.raises(client.exceptions.ConditionalCheckFailedException) as caught:
            client.put_item(
                TableName="records",
                Item=key(),
                ConditionExpression="attribute_not_exists(pk)",
                ReturnValuesOnConditionCheckFailure="ALL_OLD",
            )
        assert caught.value.response["Item"]["b"] == {"B": b"\0\xff"}


def test_a_request_whose_answer_is_lost_is_repeated(client: Any, world: World) -> None:
    lost = iter([True])

    def answer(operation: str, body: Json) -> Answer:
        answered = world.database.request(operation, body)
        if next(lost, False):
            raise ReadTimeoutError(endpoint_url="http://dynamodb.simulated")
        return answered

    with answering(client, answer):
        client.update_item(
            TableName="records",
            Key=key(),
            UpdateExpression="ADD n :one",
            ExpressionAttributeValues={":one": {"N": "1"}},
        )
    assert world.ask("GetItem", Key=key())["Item"]["n"] == {"N": "2"}


def test_faults_are_errors_to_the_client(client: Any) -> None:
    fault = error_answer("ProvisionedThroughputExceededException", "slow down")
    with answering(client, lambda *_: fault), pytest.raises(ClientError) as caught:
        client.get_item(TableName="records", Key=key())
    assert caught.value.response["Error"]["Code"] == "ProvisionedThroughputExceededException"


def test_what_another_handler_refuses_is_not_carried_out(client: Any, world: World) -> None:
    def refuse(**_: Any) -> None:
        raise ReadTimeoutError(endpoint_url="http://dynamodb.simulated")

    with answering(client, world.database.request):
        client.meta.events.register("before-send.dynamodb", refuse)
        with pytest.raises(ReadTimeoutError):
            client.put_item(TableName="records", Item=key())
        client.meta.events.unregister("before-send.dynamodb", refuse)
    assert world.ask("Scan")["Count"] == 0
