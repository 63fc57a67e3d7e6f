"""What the adapter adds to ministack's DynamoDB, and that each database is one of its own."""

from __future__ import annotations

import re
from typing import Any
from unittest import mock

import pytest

from simulation.database import Database, packed

Json = dict[str, Any]

START = 1_800_000_000.0
TABLE: Json = {
    "TableName": "records",
    "BillingMode": "PAY_PER_REQUEST",
    "AttributeDefinitions": [
        *({"AttributeName": name, "AttributeType": "S"} for name in ("pk", "sk", "g")),
        {"AttributeName": "n", "AttributeType": "N"},
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
        },
        {
            "IndexName": "by_n",
            "KeySchema": [
                {"AttributeName": "g", "KeyType": "HASH"},
                {"AttributeName": "n", "KeyType": "RANGE"},
            ],
            "Projection": {"ProjectionType": "KEYS_ONLY"},
        },
    ],
    "StreamSpecification": {"StreamEnabled": True, "StreamViewType": "NEW_AND_OLD_IMAGES"},
}


class World:
    """A database with one table, and its clock."""

    def __init__(self, **options: Any) -> None:
        self.time = START
        self.database = Database(lambda: self.time, **options)
        self.request("CreateTable", **TABLE)

    def request(self, operation: str, **body: Any) -> Json:
        """Send a request; returns the body of the successful response."""
        response = self.database.request(operation, {"TableName": "records", **body})
        assert response.status == 200, response.body
        return response.body

    def put(self, pk: str = "p", sk: str = "s", **values: Json) -> None:
        """Put an item."""
        self.request("PutItem", Item={**key(pk, sk), **values})

    def indexed(self, g: str = "g") -> list[Json]:
        """What the index shows."""
        items: list[Json] = self.request(
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


class TestDatabase:
    def test_an_update_leaves_the_former_item_to_the_stream(self, world: World) -> None:
        world.put(m={"M": {"n": {"N": "1"}}})
        world.request(
            "UpdateItem",
            Key=key(),
            UpdateExpression="SET m.n = m.n + :one",
            ExpressionAttributeValues={":one": {"N": "1"}},
        )
        change = world.database.stream("records").records[-1]["dynamodb"]
        assert change["OldImage"]["m"] == {"M": {"n": {"N": "1"}}}
        assert change["NewImage"]["m"] == {"M": {"n": {"N": "2"}}}

    def test_a_token_counts_for_ten_minutes_of_the_clock(self, world: World) -> None:
        add = {
            "Update": {
                "TableName": "records",
                "Key": key(),
                "UpdateExpression": "ADD n :one",
                "ExpressionAttributeValues": {":one": {"N": "1"}},
            }
        }
        request = {"TransactItems": [add], "ClientRequestToken": "1"}
        for elapsed, total in ((0, "1"), (599, "1"), (601, "2")):
            world.time = START + elapsed
            world.request("TransactWriteItems", **request)
            assert world.request("GetItem", Key=key())["Item"]["n"] == {"N": total}
        other = world.database.request(
            "TransactWriteItems", {**request, "TransactItems": [add] * 2}
        )
        assert other.body["__type"].endswith("IdempotentParameterMismatchException")


class TestItems:
    def test_change_of_a_copy_changes_no_stored_item(self, world: World) -> None:
        world.put(m={"M": {}})
        (copy,) = world.database.items("records")
        copy["m"]["M"]["n"] = {"N": "1"}
        assert world.request("GetItem", Key=key())["Item"] == {**key(), "m": {"M": {}}}


class TestQuery:
    @pytest.mark.parametrize("forward", [True, False])
    @pytest.mark.parametrize(
        ("condition", "expected"),
        [
            ("g = :g", "-2 0 0 1.5 7 9 10 10 10 30"),
            ("(g = :g AND n BETWEEN :0 AND :10)", "0 0 1.5 7 9 10 10 10"),
            ("g = :g AND #n < :10", "-2 0 0 1.5 7 9"),
            ("#n <= :10 AND g = :g", "-2 0 0 1.5 7 9 10 10 10"),
            ("g = :g AND n > :0", "1.5 7 9 10 10 10 30"),
            ("g = :g AND n >= :10", "10 10 10 30"),
            ("g = :g AND n = :0", "0 0"),
        ],
    )
    def test_pages_of_an_index_have_what_is_in_a_range_in_order(
        self, world: World, condition: str, expected: str, *, forward: bool
    ) -> None:
        for place, number in enumerate((10, -2, 7, 0, 30, 10, 0, 10, 9, 1.5)):
            world.put(f"p{place}", g={"S": "g"}, n={"N": str(number)})
            world.put(f"q{place}", g={"S": "other"}, n={"N": str(number)})
        names = {"#n": "n"} if "#n" in condition else None
        values = {":g": {"S": "g"}, ":0": {"N": "0"}, ":10": {"N": "10"}}
        found: list[Json] = []
        start: Json | None = {}
        while start is not None:
            page = world.request(
                "Query",
                IndexName="by_n",
                KeyConditionExpression=condition,
                ExpressionAttributeValues={
                    name: value
                    for name, value in values.items()
                    if name in re.findall(r":\w+", condition)
                },
                ScanIndexForward=forward,
                Limit=3,
                **({"ExpressionAttributeNames": names} if names else {}),
                **start,
            )
            found += page["Items"]
            last = page.get("LastEvaluatedKey")
            start = {"ExclusiveStartKey": last} if last else None
        numbers = [item["n"]["N"] for item in found]
        assert numbers == expected.split()[:: 1 if forward else -1]
        assert len({item["pk"]["S"] for item in found}) == len(found)

    def test_reads_only_what_a_page_has(
        self, world: World, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        for place in range(100):
            world.put(f"p{place}", g={"S": "g"}, n={"N": str(place)})
        unpack = mock.Mock(wraps=packed._unpack)
        monkeypatch.setattr(packed, "_unpack", unpack)
        page = world.request(
            "Query",
            IndexName="by_n",
            KeyConditionExpression="g = :g AND n > :n",
            ExpressionAttributeValues={":g": {"S": "g"}, ":n": {"N": "50"}},
            Limit=3,
        )
        assert [item["n"]["N"] for item in page["Items"]] == ["51", "52", "53"]
        assert unpack.call_count == 3

    def test_follows_an_item_whose_key_changes(self, world: World) -> None:
        world.put(g={"S": "first"}, n={"N": "1"})
        world.put(g={"S": "second"}, n={"N": "1"})
        assert (world.indexed("first"), len(world.indexed("second"))) == ([], 1)
        world.put()
        assert world.indexed("second") == []

    @pytest.mark.parametrize(
        ("condition", "expected"),
        [
            ("pk = :p AND sk BETWEEN :b AND :c", "b bb c"),
            ("pk = :p AND sk > :b", "bb c d"),
            ("pk = :p AND begins_with(sk, :b)", "b bb"),
            ("pk = :p", "a b bb c d"),
        ],
    )
    def test_of_the_table_has_what_is_in_a_range(
        self, world: World, condition: str, expected: str
    ) -> None:
        for sk in ("d", "a", "bb", "c", "b"):
            world.put("p", sk)
            world.put("other", sk)
        values = {":p": {"S": "p"}, ":b": {"S": "b"}, ":c": {"S": "c"}}
        found = world.request(
            "Query",
            KeyConditionExpression=condition,
            ExpressionAttributeValues={
                name: value for name, value in values.items() if name in condition
            },
        )["Items"]
        assert [item["sk"]["S"] for item in found] == expected.split()

    @pytest.mark.parametrize(
        "wrong",
        [
            {"IndexName": "by_h"},
            {"KeyConditionExpression": "n = :g"},
            {"KeyConditionExpression": "g = :h"},
            {"KeyConditionExpression": "g = :g AND n = :g"},
            {"ExclusiveStartKey": {"g": {"S": "g"}}},
            {"Limit": -1},
        ],
    )
    def test_that_is_wrong_is_refused(self, world: World, wrong: Json) -> None:
        world.put(g={"S": "g"}, n={"N": "1"})
        query = {
            "TableName": "records",
            "IndexName": "by_n",
            "KeyConditionExpression": "g = :g",
            "ExpressionAttributeValues": {":g": {"S": "g"}},
        }
        response = world.database.request("Query", {**query, **wrong})
        assert response.body["__type"].endswith("ValidationException")


class TestStream:
    def test_has_every_change_and_nothing_that_changes_nothing(self, world: World) -> None:
        world.put(a={"S": "1"})
        world.put(a={"S": "1"})
        world.put(a={"S": "2"})
        world.request("DeleteItem", Key=key())
        world.request("DeleteItem", Key=key())
        records = world.database.stream("records").records
        assert [record["eventName"] for record in records] == ["INSERT", "MODIFY", "REMOVE"]
        insert, modify, remove = [record["dynamodb"] for record in records]
        assert insert["Keys"] == key()
        assert "OldImage" not in insert
        assert (modify["OldImage"]["a"], modify["NewImage"]["a"]) == ({"S": "1"}, {"S": "2"})
        assert "NewImage" not in remove
        numbers = [int(change["SequenceNumber"]) for change in (insert, modify, remove)]
        assert numbers == sorted(set(numbers))

    def test_has_all_changes_of_a_partition_in_one_shard_in_order(self, world: World) -> None:
        for number in range(30):
            world.put(f"p{number % 10}", str(number))
        shards = world.database.stream("records").shards
        assert sum(map(len, shards)) == 30
        for number in range(10):
            places = [
                (shard, record["dynamodb"]["Keys"]["sk"]["S"])
                for shard, records in enumerate(shards)
                for record in records
                if record["dynamodb"]["Keys"]["pk"]["S"] == f"p{number}"
            ]
            (shard,) = {shard for shard, _ in places}
            assert places == [(shard, str(number + tens)) for tens in (0, 10, 20)]


class TestIndex:
    def test_shows_a_change_after_its_delay(self) -> None:
        world = World(index_delay=lambda: 2.0)
        world.put(g={"S": "g"})
        assert world.indexed() == []
        world.time += 2
        assert world.indexed() == [{**key(), "g": {"S": "g"}}]
        world.request("DeleteItem", Key=key())
        assert len(world.indexed()) == 1
        world.time += 2
        assert world.indexed() == []

    def test_never_goes_back_to_an_older_version(self) -> None:
        delays = iter([10.0, 1.0])
        world = World(index_delay=lambda: next(delays))
        world.put(g={"S": "first"})
        world.put(g={"S": "second"})
        world.time += 5
        assert world.indexed("second") == []
        world.time += 5
        assert (world.indexed("first"), len(world.indexed("second"))) == ([], 1)
