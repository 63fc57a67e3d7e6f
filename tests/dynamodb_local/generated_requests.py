"""Requests to DynamoDB, drawn at random: sound ones, ones that fail, and malformed ones."""

from __future__ import annotations

import base64
from collections.abc import Callable
from random import Random
from typing import Any

Json = dict[str, Any]
Request = tuple[str, Json]

TABLES: list[Json] = [
    {
        "TableName": "records",
        "BillingMode": "PAY_PER_REQUEST",
        "AttributeDefinitions": [
            {"AttributeName": "pk", "AttributeType": "S"},
            {"AttributeName": "sk", "AttributeType": "S"},
            {"AttributeName": "g", "AttributeType": "S"},
            {"AttributeName": "n", "AttributeType": "N"},
        ],
        "KeySchema": [
            {"AttributeName": "pk", "KeyType": "HASH"},
            {"AttributeName": "sk", "KeyType": "RANGE"},
        ],
        "GlobalSecondaryIndexes": [
            {
                "IndexName": "by_g",
                "KeySchema": [
                    {"AttributeName": "g", "KeyType": "HASH"},
                    {"AttributeName": "n", "KeyType": "RANGE"},
                ],
                "Projection": {"ProjectionType": "INCLUDE", "NonKeyAttributes": ["a", "b"]},
            },
        ],
    },
    {
        "TableName": "counters",
        "BillingMode": "PAY_PER_REQUEST",
        "AttributeDefinitions": [
            {"AttributeName": "id", "AttributeType": "B"},
            {"AttributeName": "seq", "AttributeType": "N"},
        ],
        "KeySchema": [
            {"AttributeName": "id", "KeyType": "HASH"},
            {"AttributeName": "seq", "KeyType": "RANGE"},
        ],
    },
    {
        "TableName": "singles",
        "BillingMode": "PAY_PER_REQUEST",
        "AttributeDefinitions": [{"AttributeName": "name", "AttributeType": "S"}],
        "KeySchema": [{"AttributeName": "name", "KeyType": "HASH"}],
    },
]

NUMBERS = [
    "0",
    "1",
    "2",
    "3",
    "-1",
    "10",
    "1.5",
    "-0.25",
    "1e3",
    "007",
    "1.10",
    "12345678901234567",
]
ODD_NUMBERS = [
    "1e125",
    "1e126",
    "1e-130",
    "1e-131",
    "x",
    "",
    "1" * 38,
    "1" * 39,
    "1." + "3" * 40,
    "-0",
]
TEXTS = ["", "a", "ab", "abc", "b", "ba", "é", "z\U0001f600"]
PATHS = ["a", "b", "c", "#m.x", "#m.y", "#m.x.y", "l[0]", "l[1]", "l[7]", "g", "n", "#u"]
"""`#m` stands for m, `#u` for a name that only a placeholder can carry."""
NAMES = {"#m": "m", "#u": "un-usual", "#z": "z"}


class Requests:
    """A sequence of requests over few keys, so that they meet.

    Parameters
    ----------
    random : Random
        Draws everything.
    """

    def __init__(self, random: Random) -> None:
        self.random = random
        self._last: Request | None = None
        self._follow_up: Request | None = None
        self._repeatable: Json | None = None
        self._kinds: list[tuple[int, Callable[[], Request]]] = [
            (14, self._put),
            (20, self._update),
            (4, self._delete),
            (6, self._get),
            (16, self._query),
            (6, self._query_index),
            (4, self._scan),
            (12, self._transaction),
            (3, self._transact_get),
            (3, self._batch_write),
            (3, self._batch_get),
            (9, self._malformed),
        ]

    def next(self) -> Request:
        """The next request."""
        if self._follow_up is not None:
            request, self._follow_up = self._follow_up, None
        else:
            weights = [weight for weight, _ in self._kinds]
            ((_, draw),) = self.random.choices(self._kinds, weights)
            request = draw()
        self._last = request
        return request

    def note(self, answer: Json) -> None:
        """Learn from an answer: a page that has a next one is followed by it."""
        if self._last is None or self._last[0] != "Query" or "LastEvaluatedKey" not in answer:
            return
        operation, body = self._last
        self._follow_up = (
            operation,
            {**body, "ExclusiveStartKey": answer["LastEvaluatedKey"]},
        )

    # ---- values

    def _one(self, *choices: Any) -> Any:
        return self.random.choice(choices)

    def _odds(self, percent: float) -> bool:
        return self.random.random() * 100 < percent

    def _text(self) -> str:
        return str(self.random.choice(TEXTS))

    def _number(self) -> str:
        return str(self.random.choice(ODD_NUMBERS if self._odds(2) else NUMBERS))

    def _distinct(self) -> str:
        """A number that hardly comes twice: an index has no order for equal keys."""
        return str(self.random.randrange(-100_000, 100_000) / 100)

    def _binary(self) -> str:
        return base64.b64encode(self.random.choice([b"", b"\0", b"\1\2", b"\xff", b"ab"])).decode()

    def _value(self, depth: int = 0) -> Json:
        kinds = ["S", "S", "N", "N", "N", "B", "BOOL", "NULL", "SS", "NS", "BS", "L", "M"]
        kind = self.random.choice(kinds[: None if depth < 2 else -2])
        content: Any
        match kind:
            case "S":
                content = self._text()
            case "N":
                content = self._number()
            case "B":
                content = self._binary()
            case "BOOL":
                content = self._odds(50)
            case "NULL":
                content = True
            case "SS":
                content = self._members(self._text)
            case "NS":
                content = self._members(self._number)
            case "BS":
                content = self._members(self._binary)
            case "L":
                content = [self._value(depth + 1) for _ in range(self.random.randrange(4))]
            case _:
                names = self.random.sample(["x", "y", "z"], self.random.randrange(4))
                content = {name: self._value(depth + 1) for name in names}
        return {kind: content}

    def _members(self, draw: Callable[[], str]) -> list[str]:
        members = [draw() for _ in range(self.random.randrange(1, 4))]
        return members if self._odds(4) else sorted(set(members))

    # ---- tables, keys and items

    def _table(self) -> str:
        return str(self._one("records", "records", "records", "counters", "singles"))

    def _key(self, table: str) -> Json:
        if table == "records":
            sk = self._one("A", "A#1", "A#2", "AB", "B", "C")
            return {"pk": {"S": self._one("p1", "p2", "p3")}, "sk": {"S": sk}}
        if table == "counters":
            return {
                "id": {"B": self._one("YQ==", "Yg==")},
                "seq": {"N": self._one("1", "2", "-3", "1.5", "10", "2.0")},
            }
        return {"name": {"S": self._one("x", "y", "z")}}

    def _item(self, table: str) -> Json:
        item = self._key(table)
        for name in self.random.sample(["a", "b", "c", "m", "l", "un-usual"], 3):
            item[name] = self._value()
        if self._odds(40):
            item["m"] = {"M": {"x": self._value(1), "y": self._value(1)}}
        if self._odds(40):
            item["l"] = {"L": [self._value(1), self._value(1)]}
        if table == "records" and self._odds(60):
            item["g"] = {"S": self._one("g1", "g2")} if self._odds(97) else self._value()
        if table == "records" and self._odds(60):
            item["n"] = {"N": self._distinct()} if self._odds(97) else self._value()
        return item

    # ---- expressions

    def _path(self) -> str:
        return str(self.random.choice(PATHS))

    def _placeholder(self, body: Json, value: Json) -> str:
        values = body.setdefault("ExpressionAttributeValues", {})
        name = f":v{len(values)}"
        values[name] = value
        return name

    def _scalar(self) -> Json:
        return self._one({"S": self._text()}, {"N": self._number()}, {"B": self._binary()})

    def _operand(self, body: Json, value: Json | None = None) -> str:
        if self._odds(15):
            return self._path()
        if self._odds(6):
            return f"size({self._path()})"
        if value is None:
            value = self._scalar() if self._odds(85) else self._value()
        return self._placeholder(body, value)

    def _condition(self, body: Json, depth: int = 0) -> str:
        if depth < 2 and self._odds(35):
            joined = f" {self._one('AND', 'OR', 'and')} ".join(
                self._condition(body, depth + 1) for _ in range(2)
            )
            return self._one("NOT ({})", "({})", "{}").format(joined)  # type: ignore[no-any-return]
        if self._odds(55):
            return self._function(body)
        path = self._path() if self._odds(90) else f"size({self._path()})"
        match self.random.randrange(4):
            case 0:
                kind = self._one("S", "N")
                ends = [{kind: self._text() if kind == "S" else self._number()} for _ in "12"]
                low, high = (self._operand(body, end) for end in ends)
                return f"{path} BETWEEN {low} AND {high}"
            case 1:
                choices = [self._operand(body) for _ in range(self.random.randrange(1, 4))]
                return f"{path} IN ({', '.join(choices)})"
            case _:
                operator = self._one("=", "=", "<>", "<", "<=", ">", ">=")
                return f"{path} {operator} {self._operand(body)}"

    def _function(self, body: Json) -> str:
        path = self._path()
        match self.random.randrange(5):
            case 0:
                return f"attribute_exists({path})"
            case 1:
                return f"attribute_not_exists({path})"
            case 2:
                kind = self._one("S", "N", "B", "M", "L", "SS", "NS", "BS", "BOOL", "NULL", "X")
                return f"attribute_type({path}, {self._placeholder(body, {'S': kind})})"
            case 3:
                prefix = {"S": self._text()} if self._odds(90) else self._value()
                return f"begins_with({path}, {self._placeholder(body, prefix)})"
            case _:
                return f"contains({path}, {self._operand(body)})"

    def _source(self, body: Json, depth: int = 0) -> str:
        match self.random.randrange(8):
            case 0:
                return self._path()
            case 1 if depth < 2:
                return f"if_not_exists({self._path()}, {self._source(body, depth + 1)})"
            case 2 if depth == 0:
                number = self._placeholder(body, {"N": self._number()})
                left = f"if_not_exists({self._path()}, {number})"
                return f"{left} {self._one('+', '-')} {number}"
            case 3:
                one = self._placeholder(body, {"L": [self._value(1)]})
                other = self._one(self._path(), "l", one)
                return self._one(f"list_append({one}, {other})", f"list_append({other}, {one})")  # type: ignore[no-any-return]
            case _:
                value = self._value() if self._odds(90) else {"S": "g1"}
                return self._placeholder(body, value)

    def _update_expression(self, body: Json) -> str:
        clauses = {}
        for _ in range(self.random.choice([1, 1, 2, 3])):
            word = self._one("SET", "SET", "SET", "REMOVE", "ADD", "DELETE")
            count = self.random.choice([1, 1, 2])
            clauses[word] = ", ".join(self._action(body, word) for _ in range(count))
        return " ".join(f"{word} {actions}" for word, actions in clauses.items())

    def _action(self, body: Json, word: str) -> str:
        path = self._path()
        if word == "SET":
            if path in ("g", "n") and self._odds(90):
                value = {"S": "g1"} if path == "g" else {"N": self._distinct()}
                return f"{path} = {self._placeholder(body, value)}"
            return f"{path} = {self._source(body)}"
        if word == "REMOVE":
            return path
        if self._odds(6):
            return f"{path} {self._placeholder(body, self._value())}"
        kinds = ["SS", "NS"] if word == "DELETE" else ["SS", "NS", "N", "N"]
        kind = self.random.choice(kinds)
        content: Any = self._number()
        if kind != "N":
            content = self._members(self._text) if kind == "SS" else self._members(self._number)
        return f"{path} {self._placeholder(body, {kind: content})}"

    def _with_names(self, body: Json) -> Json:
        text = " ".join(str(value) for name, value in body.items() if name.endswith("Expression"))
        names = {placeholder: name for placeholder, name in NAMES.items() if placeholder in text}
        if names:
            body["ExpressionAttributeNames"] = names
        return body

    # ---- operations

    def _conditional(self, body: Json, percent: float) -> Json:
        if self._odds(percent):
            body["ConditionExpression"] = self._condition(body)
            if self._odds(50):
                body["ReturnValuesOnConditionCheckFailure"] = "ALL_OLD"
        return body

    def _put_body(self) -> Json:
        table = self._table()
        body: Json = {"TableName": table, "Item": self._item(table)}
        return self._with_names(self._conditional(body, 35))

    def _update_body(self) -> Json:
        table = self._table()
        body: Json = {"TableName": table, "Key": self._key(table)}
        body["UpdateExpression"] = self._update_expression(body)
        return self._with_names(self._conditional(body, 35))

    def _delete_body(self) -> Json:
        table = self._table()
        body: Json = {"TableName": table, "Key": self._key(table)}
        return self._with_names(self._conditional(body, 50))

    def _check_body(self) -> Json:
        table = self._table()
        body: Json = {"TableName": table, "Key": self._key(table)}
        return self._with_names(self._conditional(body, 100))

    def _get_body(self) -> Json:
        table = self._table()
        body: Json = {"TableName": table, "Key": self._key(table)}
        if self._odds(50):
            body["ProjectionExpression"] = self._projection()
        return self._with_names(body)

    def _projection(self) -> str:
        return ", ".join(self.random.sample([*PATHS, "pk", "sk"], self.random.randrange(1, 4)))

    def _put(self) -> Request:
        body = self._put_body()
        if self._odds(40):
            body["ReturnValues"] = "ALL_OLD"
        return "PutItem", body

    def _update(self) -> Request:
        body = self._update_body()
        body["ReturnValues"] = self._one("NONE", "ALL_OLD", "ALL_NEW", "UPDATED_OLD", "UPDATED_NEW")
        if self._odds(3):
            del body["UpdateExpression"]
        return "UpdateItem", body

    def _delete(self) -> Request:
        body = self._delete_body()
        if self._odds(40):
            body["ReturnValues"] = "ALL_OLD"
        return "DeleteItem", body

    def _get(self) -> Request:
        return "GetItem", self._get_body()

    def _reading(self, body: Json) -> Json:
        if self._odds(40):
            body["Limit"] = self.random.randrange(1, 5)
        if self._odds(35):
            body["FilterExpression"] = self._condition(body)
        if self._odds(20):
            body["ProjectionExpression"] = self._projection()
        elif self._odds(10):
            body["Select"] = "COUNT"
        return self._with_names(body)

    def _key_condition(self, body: Json, hash_key: str, value: Json, range_key: str) -> str:
        on_hash = f"{hash_key} = {self._placeholder(body, value)}"

        def drawn() -> str:
            value = {
                "sk": lambda: self._key("records")["sk"],
                "seq": lambda: self._key("counters")["seq"],
                "n": lambda: {"N": self._distinct()},
            }[range_key]()
            return self._placeholder(body, value)

        match self.random.randrange(5):
            case 0:
                return on_hash
            case 1:
                return f"{on_hash} AND {range_key} BETWEEN {drawn()} AND {drawn()}"
            case 2 if range_key == "sk":
                return f"begins_with({range_key}, {drawn()}) AND {on_hash}"
            case _:
                operator = self._one("=", "<", "<=", ">", ">=")
                return f"({on_hash}) AND {range_key} {operator} {drawn()}"

    def _query(self) -> Request:
        table = self._one("records", "records", "counters")
        hash_key, range_key = ("pk", "sk") if table == "records" else ("id", "seq")
        body: Json = {"TableName": table, "ScanIndexForward": self._odds(50)}
        value = self._key(table)[hash_key]
        body["KeyConditionExpression"] = self._key_condition(body, hash_key, value, range_key)
        if self._odds(30):
            body["ConsistentRead"] = True
        return "Query", self._reading(body)

    def _query_index(self) -> Request:
        body: Json = {
            "TableName": "records",
            "IndexName": "by_g",
            "ScanIndexForward": self._odds(50),
        }
        value = {"S": self._one("g1", "g2")}
        body["KeyConditionExpression"] = self._key_condition(body, "g", value, "n")
        if self._odds(5):
            body["ConsistentRead"] = True
        return "Query", self._reading(body)

    def _scan(self) -> Request:
        body: Json = {"TableName": self._table()}
        body = self._reading(body)
        body.pop("Limit", None)  # the order of a scan is nobody's promise
        if body["TableName"] == "records" and "FilterExpression" not in body and self._odds(40):
            body["IndexName"] = "by_g"
        return "Scan", body

    def _action_of_transaction(self) -> Json:
        match self.random.randrange(7):
            case 0 | 1:
                return {"Put": self._put_body()}
            case 2 | 3 | 4:
                return {"Update": self._update_body()}
            case 5:
                return {"Delete": self._delete_body()}
            case _:
                return {"ConditionCheck": self._check_body()}

    def _actions(self, count: int) -> list[Json]:
        return [self._action_of_transaction() for _ in range(count)]

    def _transaction(self) -> Request:
        if self._repeatable is not None and self._odds(30):
            again = self._repeatable
            if self._odds(40):
                again = {**again, "TransactItems": [self._action_of_transaction()]}
            return "TransactWriteItems", again
        count = self.random.choice([1, 2, 3, 4])
        # DynamoDB Local notices two actions on one item only where their conditions hold.
        by_item = {_item_of(each): each for each in self._actions(count)}
        body: Json = {"TransactItems": list(by_item.values())}
        if self._odds(25):
            body["ClientRequestToken"] = f"token-{self.random.randrange(10**6)}"
            self._repeatable = body
        return "TransactWriteItems", body

    def _transact_get(self) -> Request:
        gets = [{"Get": self._get_body()} for _ in range(self.random.randrange(1, 4))]
        return "TransactGetItems", {"TransactItems": gets}

    def _batch_write(self) -> Request:
        requests: Json = {}
        for _ in range(self.random.choice([1, 2, 3, 5] if self._odds(95) else [26])):
            table = self._table()
            request = {"PutRequest": {"Item": self._item(table)}}
            if self._odds(40):
                request = {"DeleteRequest": {"Key": self._key(table)}}
            requests.setdefault(table, []).append(request)
        return "BatchWriteItem", {"RequestItems": requests}

    def _batch_get(self) -> Request:
        requests: Json = {}
        for _ in range(self.random.choice([1, 2, 3])):
            table = self._table()
            requests.setdefault(table, {"Keys": []})["Keys"].append(self._key(table))
        return "BatchGetItem", {"RequestItems": requests}

    # ---- malformed requests

    def _malformed(self) -> Request:
        """A sound request with one thing wrong about it."""
        spoil = self._one(
            self._unknown_table,
            self._wrong_key,
            self._unused_placeholder,
            self._undefined_placeholder,
            self._wrong_syntax,
            self._wrong_value,
            self._too_much,
            self._wrong_option,
            self._wrong_query,
        )
        request: Request = spoil()
        return request

    def _single(self) -> Request:
        return self._one(self._put, self._update, self._delete, self._get)()  # type: ignore[no-any-return]

    def _unknown_table(self) -> Request:
        operation, body = self._single()
        return operation, {**body, "TableName": "nowhere"}

    def _wrong_key(self) -> Request:
        operation, body = self._one(self._update, self._delete, self._get)()
        wrong: list[Json] = [
            {},
            {"pk": {"S": "p1"}},
            {"pk": {"S": ""}, "sk": {"S": "A"}},
            {"pk": {"N": "1"}, "sk": {"S": "A"}},
            {"pk": {"S": "p1"}, "sk": {"S": "A"}, "a": {"S": "A"}},
            {"pk": {"S": "p" * 2049}, "sk": {"S": "A"}},
            {"pk": {"S": "p1"}, "sk": {"S": "A" * 1025}},
        ]
        return operation, {**body, "TableName": "records", "Key": self.random.choice(wrong)}

    def _unused_placeholder(self) -> Request:
        operation, body = self._one(self._put, self._update, self._delete)()
        which, entry = self._one(
            ("ExpressionAttributeNames", {"#unused": "q"}),
            ("ExpressionAttributeValues", {":unused": {"S": "q"}}),
        )
        return operation, {**body, which: {**body.get(which, {}), **entry}}

    def _undefined_placeholder(self) -> Request:
        operation, body = self._one(self._put, self._update, self._delete)()
        condition = self._one("#undefined = a", "a = :undefined", "attribute_exists(#undefined)")
        return operation, {**body, "ConditionExpression": condition}

    def _wrong_syntax(self) -> Request:
        operation, body = self._update()
        where = self._one("ConditionExpression", "UpdateExpression")
        body.pop("ExpressionAttributeValues", None)
        body.pop("ExpressionAttributeNames", None)
        body.pop("ConditionExpression", None)
        body["UpdateExpression"] = "REMOVE a"
        wrong = [
            "",
            "a =",
            "a = = b",
            "(a = b",
            "attribute_exists()",
            "attribute_exists(a, b)",
            "unknown(a)",
            "SET a = b SET c = b",
            "SET a = b, a = c",
            "SET a = b REMOVE a.x",
            "REMOVE a.x, a[0]",
            "REMOVE pk",
            "SET sk = a",
            "ADD a b",
            "a = b ! c",
            "a = a",
            "a BETWEEN b",
            "a IN ()",
            "size(a)",
            "SET a = size(b)",
            "SET a",
            "REMOVE a[x]",
            "REMOVE a b",
        ]
        body[where] = self.random.choice(wrong)
        return operation, body

    def _wrong_value(self) -> Request:
        wrong = [
            {},
            {"S": "a", "N": "1"},
            {"NULL": False},
            {"SS": []},
            {"SS": ["a", "a"]},
            {"NS": ["1", "1.0"]},
            {"N": self.random.choice(ODD_NUMBERS)},
            {"M": {"x": {}}},
            {"L": [{"N": "x"}]},
        ]
        operation, body = self._put()
        return operation, {**body, "Item": {**body["Item"], "a": self.random.choice(wrong)}}

    def _too_much(self) -> Request:
        item = {**self._key("records"), "a": {"S": "x" * self._one(409_000, 409_600, 410_000)}}
        put = {"TableName": "records", "Item": item}
        key = {"name": {"S": "x"}}
        twice = {"Update": {"TableName": "singles", "Key": key, "UpdateExpression": "REMOVE a"}}
        many = [
            {"Put": {"TableName": "singles", "Item": {"name": {"S": f"many{i}"}}}}
            for i in range(101)
        ]
        return self._one(  # type: ignore[no-any-return]
            ("PutItem", put),
            ("TransactWriteItems", {"TransactItems": [{"Put": put}]}),
            ("TransactWriteItems", {"TransactItems": [twice, twice]}),
            ("TransactWriteItems", {"TransactItems": many}),
            ("TransactWriteItems", {"TransactItems": []}),
            ("TransactWriteItems", {"TransactItems": [{**twice, "Put": put}]}),
            ("BatchWriteItem", {"RequestItems": {}}),
            ("BatchWriteItem", {"RequestItems": {"nowhere": [{"DeleteRequest": {"Key": key}}]}}),
            ("BatchGetItem", {"RequestItems": {"records": {"Keys": []}}}),
        )

    def _wrong_option(self) -> Request:
        operation, body = self._one(self._put, self._delete, self._query, self._scan)()
        option, value = self._one(
            ("ReturnValues", "ALL_NEW"),
            ("ReturnValuesOnConditionCheckFailure", "SOME"),
        )
        if operation in ("Query", "Scan"):
            option, value = self._one(
                ("Limit", 0),
                ("Select", "SPECIFIC"),
                ("IndexName", "nowhere"),
                ("Select", "ALL_PROJECTED_ATTRIBUTES"),
            )
        return operation, {**body, option: value}

    def _wrong_query(self) -> Request:
        body: Json = {"TableName": "records"}
        value = self._placeholder(body, {"S": "p1"})
        other = self._placeholder(body, self._one({"S": "A"}, {"N": "1"}, {"S": ""}))
        body["KeyConditionExpression"] = self._one(
            f"pk = {value} OR sk = {other}",
            f"pk = {value} AND a = {other}",
            f"sk = {value} AND sk = {other}",
            f"pk = {value} AND sk <> {other}",
            f"pk = {value} AND NOT sk = {other}",
            f"pk = {value} AND sk = {other} AND sk = {other}",
            f"pk = {value} AND contains(sk, {other})",
            f"pk > {value} AND sk = {other}",
            f"pk = {value} AND sk IN ({other})",
            f"pk = {value} AND sk = {other}",
            f"pk = {value} AND begins_with(sk, {other})",
            f"pk = {value} AND size(sk) = {other}",
        )
        if self._odds(20):
            body["FilterExpression"] = f"sk = {other}"
        if self._odds(30):
            body["ExclusiveStartKey"] = self._one(
                self._key("records"), {"pk": {"S": "p1"}}, {"pk": {"S": "p1"}, "sk": {"N": "1"}}
            )
        return "Query", body


def _item_of(action: Json) -> str:
    (body,) = action.values()
    key = body.get("Key") or {
        name: body["Item"].get(name) for name in ("pk", "sk", "id", "seq", "name")
    }
    return f"{body['TableName']}: {sorted((name, value) for name, value in key.items() if value)}"
