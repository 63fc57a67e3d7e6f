"""The JSON schema of published events accepts what is published, and nothing else."""

from __future__ import annotations

from typing import Any

import pytest
from jsonschema import Draft202012Validator
from jsonschema.validators import validator_for

from stripe_integrations.actions.events.side_effects import Effect
from tools.published_event import SCHEMA, schema_errors

DETAIL = {
    "event_id": "evt_1",
    "type": "customer.updated",
    "created": 1_800_000_000,
    "customer_id": "cus_1",
    "user_id": "u-1",
    "livemode": False,
    "effect": "applied",
    "customer_is_active": True,
}
WITHOUT_CUSTOMER = {
    **DETAIL,
    "customer_id": None,
    "user_id": None,
    "effect": "none",
    "customer_is_active": False,
}


class TestSchema:
    def test_is_a_json_schema(self) -> None:
        assert validator_for(SCHEMA) is Draft202012Validator
        Draft202012Validator.check_schema(SCHEMA)

    def test_documents_every_effect(self) -> None:
        effect = SCHEMA["properties"]["effect"]
        assert effect["enum"] == list(Effect)
        assert all(f"{name} (" in effect["description"] for name in Effect)

    def test_requires_and_describes_every_property(self) -> None:
        assert SCHEMA["required"] == list(SCHEMA["properties"])
        assert all("description" in each for each in SCHEMA["properties"].values())

    @pytest.mark.parametrize("detail", [DETAIL, WITHOUT_CUSTOMER])
    def test_accepts_what_is_published(self, detail: dict[str, Any]) -> None:
        assert schema_errors(detail) == []

    @pytest.mark.parametrize(
        "changes",
        [
            {"event_id": None},
            {"event_id": "cus_1"},
            {"created": "2027-01-15T08:00:00Z"},
            {"user_id": None},
            {"livemode": "test"},
            {"effect": "ignored"},
            {"customer_is_active": None},
            {"email": "jane@example.com"},
            {"customer_id": None},
            {"customer_id": None, "user_id": None, "customer_is_active": False},
        ],
    )
    def test_refuses_anything_else(self, changes: dict[str, Any]) -> None:
        assert len(schema_errors({**DETAIL, **changes})) >= 1

    @pytest.mark.parametrize("name", DETAIL)
    def test_refuses_a_detail_that_lacks_a_property(self, name: str) -> None:
        detail = {other: value for other, value in DETAIL.items() if other != name}
        assert len(schema_errors(detail)) >= 1
