"""`tools.export_user` writes the items of a user as JSON lines."""

from __future__ import annotations

import json

import pytest

from stripe_integrations.actions import StripeCustomer, User
from tests.world import EMAIL, World
from tools.export_user import main


@pytest.mark.parametrize("user_id", ["user-1", "it's $(whoami) `x` \\", '"}'])
def test_writes_items_of_user(
    world: World, user_id: str, capsys: pytest.CaptureFixture[str]
) -> None:
    StripeCustomer.create(User(user_id), EMAIL)
    StripeCustomer.create(User("other"), EMAIL)
    assert main([f"--table={world.settings.table_name}", f"--user={user_id}"]) == 0
    items = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert {item["record_type"] for item in items} == {"Customer", "CustomerClaim", "Pointer"}
    assert {item["user_id"] for item in items if "user_id" in item} == {user_id}


@pytest.mark.parametrize(("table", "user_id"), [("{}", ""), ("no-such-table", "user-1")])
def test_failure_has_status_and_message(
    world: World, table: str, user_id: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([f"--table={table.format(world.settings.table_name)}", f"--user={user_id}"]) == 1
    assert capsys.readouterr().err
