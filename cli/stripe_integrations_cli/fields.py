"""Fields of a customer as arguments: ``name=Jenny``, ``metadata.plan=pro``, ``balance:=0``."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from stripe_integrations_cli.errors import UsageError

Json = dict[str, Any]


def parsed_fields(assignments: list[str] | None, file: str | None) -> Json:
    """Return the fields that were given, those of the file first.

    Parameters
    ----------
    assignments : list of str or None
        ``NAME=TEXT`` or ``NAME:=JSON``; a dot separates the names of nested fields.
    file : str or None
        The path of a file with a JSON object, or ``-`` for standard input.

    Raises
    ------
    UsageError
        One of them can't be parsed; the message contains no value.
    """
    fields = _from_file(file) if file else {}
    for assignment in assignments or ():
        name, equals, text = assignment.partition("=")
        if not equals or not name.rstrip(":"):
            raise UsageError("fields are given as NAME=TEXT or NAME:=JSON")
        value: Any = text
        if name.endswith(":"):
            name = name.removesuffix(":")
            try:
                value = _from_json(text)
            except ValueError:
                raise UsageError(f"the value of {name} is not JSON") from None
        *objects, last = name.split(".", 1) if name.startswith("metadata.") else name.split(".")
        place = fields
        for each in objects:
            place = place.setdefault(each, {})
            if not isinstance(place, dict):
                raise UsageError(f"{each} is given twice")
        place[last] = value
    return fields


def _from_json(text: str) -> Any:
    """Read JSON, in which there is no NaN and no Infinity."""

    def refuse(constant: str) -> None:
        raise ValueError(constant)

    return json.loads(text, parse_constant=refuse)


def _from_file(file: str) -> Json:
    try:
        text = sys.stdin.read() if file == "-" else Path(file).read_text()
        given = _from_json(text)
    except (OSError, ValueError):
        raise UsageError(f"{file} can't be read as JSON") from None
    if not isinstance(given, dict):
        raise UsageError(f"{file} has no JSON object")
    return given
