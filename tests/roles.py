"""What template.yaml allows each function, and what its requests need.

A function of a `World` runs under its own role. A request that the role does not allow is refused,
as AWS would refuse it, and the call fails in the end, even where the function handled the refusal.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import botocore.handlers
from botocore.exceptions import ClientError

from tools.template import of_type, template

Json = dict[str, Any]

LEADING_KEYS = "dynamodb:LeadingKeys"
ATTRIBUTES = "dynamodb:Attributes"
DEAD_LETTERS = "dead-letters"
UNDELIVERED_EVENTS = "undelivered-events"
"""The names of the queues, which AWS would generate."""
REPORTS = "reports"
"""The name of the bucket, which AWS would generate."""

_REGION = "eu-west-1"
_ACCOUNT = "123456789012"
_NOTHING = object()
_FOLDER = re.compile(r"(arn:aws:s3:::[^/]+/[^/]+/).*")
_SCOPES = (LEADING_KEYS, ATTRIBUTES)
_WRITES = {
    "Put": "PutItem",
    "Update": "UpdateItem",
    "Delete": "DeleteItem",
    "ConditionCheck": "ConditionCheckItem",
}


class RoleTooNarrowError(AssertionError):
    """A function made a request that its role does not allow."""


class Grant(NamedTuple):
    """An action on a resource, and one of the partition keys, or attributes, it is limited to.

    `scope` is None where nothing limits it.
    """

    action: str
    resource: str
    scope: str | None = None


@dataclass(frozen=True)
class Need:
    """What a request has to be allowed, as IAM sees it.

    Parameters
    ----------
    action, resource : str
        As in a policy.
    context : mapping
        Values by condition key, of those that the request has.
    """

    action: str
    resource: str
    context: Mapping[str, frozenset[str]] = field(default_factory=dict)

    def grants(self) -> set[Grant]:
        """The narrowest grants that it can do with."""
        scopes = [_family(value) for key in _SCOPES for value in self.context.get(key, ())]
        resource = _FOLDER.sub(r"\1*", self.resource)
        return {Grant(self.action, resource, scope) for scope in (*scopes,) or (None,)}


@dataclass(frozen=True)
class Statement:
    """A statement of a role, with its references resolved."""

    actions: tuple[str, ...]
    resources: tuple[str, ...]
    conditions: Mapping[str, Mapping[str, Any]]

    def allows(self, need: Need) -> bool:
        """Return whether the statement suffices for a request."""
        return (
            need.action in self.actions
            and any(fnmatchcase(need.resource, pattern) for pattern in self.resources)
            and all(
                _holds(operator, _listed(given), need.context.get(key))
                for operator, keys in self.conditions.items()
                for key, given in keys.items()
            )
        )

    def grants(self) -> set[Grant]:
        """What it gives, one by one."""
        scopes = [
            value
            for conditions in self.conditions.values()
            for key in _SCOPES
            for value in _listed(conditions.get(key, []))
        ]
        return {
            Grant(action, resource, scope)
            for action in self.actions
            for resource in self.resources
            for scope in (*scopes,) or (None,)
        }


@dataclass(frozen=True)
class Role:
    """What a function may do.

    Parameters
    ----------
    function : str
        The function's folder.
    statements : tuple of Statement
        All of them allow.
    """

    function: str
    statements: tuple[Statement, ...]

    def allows(self, need: Need) -> bool:
        """Return whether one of its statements suffices for a request."""
        return any(statement.allows(need) for statement in self.statements)


class Deployment:
    """A stack of the template with known parameters, and the roles of its functions.

    Parameters
    ----------
    **parameters
        Parameters that differ from their defaults.
    """

    def __init__(self, **parameters: str) -> None:
        declared = template()["Parameters"]
        given = {**{n: p.get("Default", "") for n, p in declared.items()}, **parameters}
        self._parameters = {
            "AWS::Partition": "aws",
            "AWS::Region": _REGION,
            "AWS::AccountId": _ACCOUNT,
            "AWS::URLSuffix": "amazonaws.com",
            "AWS::NoValue": _NOTHING,
            **{name: name for name in template()["Resources"]},
            **{n: _parameter(declared[n]["Type"], value) for n, value in given.items()},
        }
        self._roles: dict[str, Role] = {}

    def role(self, function: str) -> Role:
        """The role of a function, by the name of its folder."""
        if function not in self._roles:
            self._roles[function] = self._read(function)
        return self._roles[function]

    def attached(self, function: str) -> list[str]:
        """The managed policies of a function's role: logical ids of the stack's own, and ARNs."""
        properties = template()["Resources"][role_of(function)]["Properties"]
        attached: list[str] = self._resolve(properties["ManagedPolicyArns"])
        return attached

    def holds(self, condition: str) -> bool:
        """Return whether a condition of the template holds."""
        return self._is(template()["Conditions"][condition])

    def _read(self, function: str) -> Role:
        statements = [
            statement
            for policy in policies_of(function)
            for statement in self._resolve(policy["PolicyDocument"]["Statement"])
        ]
        assert all(statement["Effect"] == "Allow" for statement in statements)
        return Role(
            function,
            tuple(
                Statement(
                    tuple(_listed(statement["Action"])),
                    tuple(_listed(statement["Resource"])),
                    statement.get("Condition", {}),
                )
                for statement in statements
            ),
        )

    def _resolve(self, value: Any) -> Any:
        match value:
            case {"Ref": name}:
                return self._parameters[name]
            case {"Select": [_, _]} | {"Join": [_, _]} | {"Split": [_, _]}:
                return self._listed(value)
            case {"GetAtt": attribute}:
                return _attribute(attribute)
            case {"Sub": text}:
                return re.sub(r"\$\{([\w:.]+)\}", lambda found: self._named(found[1]), text)
            case {"If": [condition, then, otherwise]}:
                return self._resolve(then if self.holds(condition) else otherwise)
        return self._within(value)

    def _listed(self, value: Any) -> Any:
        """The value of a function that takes or makes a list."""
        ((name, (first, second)),) = value.items()
        second = self._resolve(second)
        match name:
            case "Select":
                return second[first]
            case "Join":
                return first.join(second)
        return second.split(first)

    def _within(self, value: Any) -> Any:
        if isinstance(value, dict):
            return {name: self._resolve(inner) for name, inner in value.items()}
        if isinstance(value, list):
            resolved = [self._resolve(inner) for inner in value]
            return [inner for inner in resolved if inner is not _NOTHING]
        return value

    def _named(self, name: str) -> str:
        return str(self._parameters[name] if name in self._parameters else _attribute(name))

    def _is(self, condition: Json) -> bool:
        match condition:
            case {"Not": [inner]}:
                return not self._is(inner)
            case {"And": inner}:
                return all(map(self._is, inner))
            case {"Or": inner}:
                return any(map(self._is, inner))
            case {"Condition": name}:
                return self.holds(name)
            case {"Equals": [one, other]}:
                return bool(self._resolve(one) == self._resolve(other))
        raise NotImplementedError(condition)


def role_of(function: str) -> str:
    """The logical id of a function's role."""
    (role,) = (
        resource["Properties"]["Role"]["GetAtt"]
        for resource in of_type("AWS::Serverless::Function").values()
        if resource["Properties"]["CodeUri"] == f"functions/{function}"
    )
    return str(role).removesuffix(".Arn")


def policies_of(function: str) -> list[Json]:
    """The policies of a function's role: the shared ones attached to it, and its inline one."""
    resources = template()["Resources"]
    attached = [resources[name]["Properties"] for name in Deployment().attached(function)]
    return [*attached, *resources[role_of(function)]["Properties"]["Policies"]]


# ---- requests


def send_message(queue: str) -> Need:
    """What it takes to send a message to a queue of this name."""
    return Need("sqs:SendMessage", _arn("sqs", queue))


def put_events(bus: str) -> Need:
    """What it takes to publish on an event bus of this name."""
    return Need("events:PutEvents", _arn("events", f"event-bus/{bus}"))


def put_object(bucket: str, key: str) -> Need:
    """What it takes to store an object in a bucket of this name."""
    return Need("s3:PutObject", f"arn:aws:s3:::{bucket}/{key}")


def get_object(bucket: str, key: str) -> Need:
    """What it takes to read an object of a bucket of this name."""
    return Need("s3:GetObject", f"arn:aws:s3:::{bucket}/{key}")


def put_log_events(log_group: str) -> Need:
    """What it takes to write to a log group, by the reference to its ARN."""
    return Need("logs:PutLogEvents", log_group)


def needs(service: str, operation: str, body: Json) -> list[Need]:  # noqa: PLR0911 - a case each
    """What a request of botocore's needs.

    https://docs.aws.amazon.com/service-authorization/latest/reference/

    Parameters
    ----------
    service, operation : str
        As botocore's events have them.
    body : dict
        The request.
    """
    match service, operation:
        case "dynamodb", _:
            return list(_of_dynamodb(operation, body))
        case "sqs", "SendMessage":
            return [send_message(body["QueueUrl"].rpartition("/")[2])]
        case "eventbridge", "PutEvents":
            return [put_events(entry["EventBusName"]) for entry in body["Entries"]]
        case "s3", "PutObject":
            return [put_object(body["Bucket"], body["Key"])]
        case "s3", "GetObject":
            return [get_object(body["Bucket"], body["Key"])]
        case "secrets-manager", "GetSecretValue":
            # A role can't know the six characters that the service adds to a name.
            secret = f"secret:{body['SecretId']}-??????"
            return [Need("secretsmanager:GetSecretValue", _arn("secretsmanager", secret))]
        case "ssm", "GetParameter":
            path = body["Name"].removeprefix("/")
            return [Need("ssm:GetParameter", _arn("ssm", f"parameter/{path}"))]
    return [Need(f"{service}:{operation}", "*")]


def _of_dynamodb(operation: str, body: Json) -> Iterator[Need]:
    match operation:
        case "TransactWriteItems":
            yield from _together(
                (_WRITES[kind], item)
                for entry in body["TransactItems"]
                for kind, item in entry.items()
            )
        case "BatchGetItem":
            yield from _together(
                (operation, {"TableName": table, "Key": key})
                for table, asked in body["RequestItems"].items()
                for key in asked["Keys"]
            )
        case "Query" if "IndexName" in body:
            yield _need("Query", f"{body['TableName']}/index/{body['IndexName']}")
        case "Query":
            found = re.search(r"(#?\w+) = (:\w+)", body["KeyConditionExpression"])
            assert found, body["KeyConditionExpression"]
            assert body.get("ExpressionAttributeNames", {}).get(found[1], found[1]) == "pk"
            key = body["ExpressionAttributeValues"][found[2]]
            yield _need("Query", body["TableName"], {LEADING_KEYS: [key["S"]]})
        case "Scan":
            names = body.get("ExpressionAttributeNames", {})
            asked = f"{body.get('ProjectionExpression', '')} {body.get('FilterExpression', '')}"
            select = "SPECIFIC_ATTRIBUTES" if "ProjectionExpression" in body else "ALL_ATTRIBUTES"
            attributes = [names[name] for name in re.findall(r"#\w+", asked)]
            context = {ATTRIBUTES: attributes, "dynamodb:Select": [select]}
            yield _need("Scan", body["TableName"], context)
        case _:
            yield from _together([(operation, body)])


def _together(parts: Iterable[tuple[str, Json]]) -> Iterator[Need]:
    """One need for each action, with the partition keys of all parts of the request."""
    actions: dict[str, set[str]] = {}
    keys: dict[str, set[str]] = {}
    for action, part in parts:
        table = part["TableName"]
        actions.setdefault(table, set()).add(action)
        item = part.get("Key") or part.get("Item") or {}
        keys.setdefault(table, set()).update(item["pk"].values() if "pk" in item else ())
    for table, asked in actions.items():
        for action in asked:
            yield _need(action, table, {LEADING_KEYS: keys[table]})


def _need(action: str, path: str, context: Mapping[str, Iterable[str]] | None = None) -> Need:
    values = {name: frozenset(given) for name, given in (context or {}).items()}
    return Need(f"dynamodb:{action}", _arn("dynamodb", f"table/{path}"), values)


# ---- a running function


@dataclass
class Acting:
    """A call of a function under its role.

    Parameters
    ----------
    role : Role
        What it may do.
    used : set of Grant
        Extended by what the call uses.
    refused : list of Need
        Extended by what the role does not allow.
    """

    role: Role
    used: set[Grant]
    refused: list[Need] = field(default_factory=list)

    def may(self, asked: Iterable[Need]) -> bool:
        """Return whether the role allows all that a request needs."""
        refused = []
        for need in asked:
            if self.role.allows(need):
                self.used |= need.grants()
            else:
                refused.append(need)
        self.refused += refused
        return not refused


_acting: ContextVar[Acting | None] = ContextVar("acting", default=None)


@contextmanager
def acting_under(role: Role, used: set[Grant]) -> Iterator[None]:
    """Authorize the requests inside the block by this role.

    Raises
    ------
    RoleTooNarrowError
        At the end of the block, if it refused any.
    """
    acting = Acting(role, used)
    token = _acting.set(acting)
    try:
        yield
    finally:
        _acting.reset(token)
        # The function may have treated a refusal as an outage.
        if acting.refused:
            raise RoleTooNarrowError(f"{role.function} may not: {acting.refused}")


@contextmanager
def acting_freely() -> Iterator[None]:
    """Authorize every request inside the block: it is not the function's."""
    token = _acting.set(None)
    try:
        yield
    finally:
        _acting.reset(token)


def allowed(need: Need) -> bool:
    """Return whether the acting function, if any, may do this."""
    acting = _acting.get()
    return acting is None or acting.may([need])


def _refuse_what_is_not_allowed(event_name: str, request: Any, **_: Any) -> None:
    acting = _acting.get()
    if acting is None:
        return
    service, operation = event_name.split(".")[1:]
    if not acting.may(needs(service, operation, _asked(service, request))):
        error: Any = {"Error": {"Code": "AccessDeniedException", "Message": "not allowed"}}
        raise ClientError(error, operation)


def _asked(service: str, request: Any) -> Json:
    """The parameters of a request: in its body, or in the address of an object."""
    if service != "s3":
        asked: Json = json.loads(request.body)
        return asked
    address = urlsplit(request.url)
    return {"Bucket": str(address.hostname).partition(".")[0], "Key": address.path[1:]}


# A client takes these handlers when it is made, and the functions make theirs in many places.
botocore.handlers.BUILTIN_HANDLERS.append(
    ("before-send", _refuse_what_is_not_allowed, botocore.handlers.REGISTER_FIRST)
)


# ---- IAM


def _holds(operator: str, given: list[str], values: frozenset[str] | None) -> bool:
    match operator:
        case "ForAllValues:StringLike":
            return all(any(fnmatchcase(v, pattern) for pattern in given) for v in values or ())
        case "ForAllValues:StringEquals" | "StringEqualsIfExists":
            return (values or set()) <= set(given)
        case "StringEquals":
            return values is not None and values <= set(given)
    raise NotImplementedError(operator)


def _family(key: str) -> str:
    prefix, hash_sign, _ = key.partition("#")
    return f"{prefix}#*" if hash_sign else key


def _attribute(name: str) -> str:
    match name:
        case "Table.Arn":
            return _arn("dynamodb", "table/customers")
        case "DeadLetters.Arn":
            return _arn("sqs", DEAD_LETTERS)
        case "Reports.Arn":
            return f"arn:aws:s3:::{REPORTS}"
        case "UndeliveredEvents.Arn":
            return _arn("sqs", UNDELIVERED_EVENTS)
    return name


def _arn(service: str, resource: str) -> str:
    return f"arn:aws:{service}:{_REGION}:{_ACCOUNT}:{resource}"


def _parameter(kind: str, value: str) -> str | list[str]:
    """What a reference to a parameter is."""
    return value.split(",") if kind == "CommaDelimitedList" else value


def _listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]
