"""The stored items as they are: every attribute."""

from __future__ import annotations

import base64
from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime
from typing import Any

from pynamodb.exceptions import PynamoDBException

from stripe_integrations.models.event import Event
from stripe_integrations.models.table import Record, unavailable

Json = dict[str, Any]


def items_of_partition(pk: str) -> Iterator[Json]:
    """Yield the items of a partition, strongly consistent, by attribute name."""
    start_key: Mapping[str, Any] | None = None
    while True:
        try:
            page = Record.table().query(pk, consistent_read=True, exclusive_start_key=start_key)
        except PynamoDBException as error:
            raise unavailable(error) from error
        yield from map(_to_json, page["Items"])
        start_key = page.get("LastEvaluatedKey")
        if not start_key:
            return


def events(stripe_ids: Iterable[str]) -> Iterator[Json]:
    """Yield the items of events, with their payloads, by attribute name."""
    for stripe_id in stripe_ids:
        yield from items_of_partition(Event.key(stripe_id))


def _to_json(item: Mapping[str, Any]) -> Json:
    """Convert an item: its record decodes the attributes that it knows."""
    try:
        model = Record.record_type.deserialize(item["record_type"]["S"])  # type: ignore[no-untyped-call]
    except (KeyError, ValueError):  # a record of a later release
        model = Record
    known = {each.attr_name: each for each in model.get_attributes().values()}
    known.pop("record_type")
    return {
        name: _plain(known[name].deserialize(known[name].get_value(value)))
        if name in known
        else _decoded(value)
        for name, value in item.items()
    }


def _plain(value: Any) -> Any:
    return value.isoformat() if isinstance(value, datetime) else value


def _decoded(value: Mapping[str, Any]) -> Any:
    ((kind, content),) = value.items()
    match kind:
        case "N":
            return float(content) if "." in content else int(content)
        case "B":
            return base64.b64encode(content).decode()
        case "NULL":
            return None
        case "L":
            return [_decoded(each) for each in content]
        case "M":
            return {name: _decoded(each) for name, each in content.items()}
    return content
