"""The JSON schema of what is published on the event bus: docs/published-event.schema.json."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from jsonschema.validators import validator_for

from tools.template import ROOT

SCHEMA: dict[str, Any] = json.loads((ROOT / "docs" / "published-event.schema.json").read_text())
_VALIDATOR = validator_for(SCHEMA)(SCHEMA)


def schema_errors(detail: Mapping[str, Any]) -> list[str]:
    """Return how a published detail differs from the schema, or which property is undocumented.

    The schema permits further properties, so that one can be added.
    """
    undocumented = sorted(detail.keys() - SCHEMA["properties"].keys())
    errors = [error.message for error in _VALIDATOR.iter_errors(dict(detail))]
    return errors + [f"{name} is not documented" for name in undocumented]
