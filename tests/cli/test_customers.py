"""`customers`: by the functions of the stack, under their roles."""

from __future__ import annotations

import json
import stat
from pathlib import Path

import pytest

from stripe_integrations.actions import StripeCustomer, User
from stripe_integrations.config import Authorizer, UnassignedCustomers
from stripe_integrations.models import Customer
from stripe_integrations.models.claim import CustomerClaim
from tests.cli.conftest import Json, Run, lines, objects
from tests.world import EMAIL, USER, World

ODD_USER = "it's a+b %2F?&user_id=u-1/é"


class TestCreate:
    def test_creates_with_fields(self, run: Run, world: World) -> None:
        fields = ("name=Jane", "metadata.plan.name=pro", "address.city=Ghent", "balance:=-500")
        (created,) = objects(run("customers", "create", "u-1", "--email", EMAIL, *fields, "--json"))
        assert created["existing"] is False
        stored = StripeCustomer.require(USER)
        assert (stored.name, stored.email, stored.balance) == ("Jane", EMAIL, -500)
        assert stored.metadata["plan.name"] == "pro"
        assert stored.address["city"] == "Ghent"

    def test_reads_fields_from_a_file_or_standard_input(
        self, run: Run, world: World, tmp_path: Path
    ) -> None:
        given = json.dumps({"billing_email": EMAIL, "name": "Of the file"})
        path = tmp_path / "fields.json"
        path.write_text(given)
        run("customers", "create", "u-1", "--file", str(path))
        run("customers", "create", "u-2", "name=Typed", "--file", "-", input=given)
        assert StripeCustomer.require(USER).name == "Of the file"
        assert StripeCustomer.require(User("u-2")).name == "Typed"

    @pytest.mark.parametrize(
        "field", ["name", "=Jane", "balance:={", "balance:=NaN", ":=1", "address=x"]
    )
    def test_refuses_argument_that_is_not_a_field(self, run: Run, field: str) -> None:
        result = run("customers", "create", "u-1", "address.city=Ghent", field)
        assert result.exit_code == (1 if field == "address=x" else 2)

    def test_refuses_field_that_is_both_text_and_object(self, run: Run) -> None:
        result = run("customers", "create", "u-1", "address=Ghent", "address.city=Ghent")
        assert result.stderr == "error: address is given twice\n"

    @pytest.mark.parametrize("content", [None, "[]", "{"])
    def test_refuses_a_file_without_an_object(
        self, run: Run, tmp_path: Path, content: str | None
    ) -> None:
        path = tmp_path / "fields.json"
        if content is not None:
            path.write_text(content)
        assert run("customers", "create", "u-1", "--file", str(path)).exit_code == 2

    def test_refusal_of_the_function_is_one_line(self, run: Run, world: World) -> None:
        result = run("customers", "create", "u-1", "--email", EMAIL, "nickname=J")
        assert result.exit_code == 1
        assert (
            result.stderr
            == "error: Unprocessable Content: nickname: is not a field of a customer\n"
        )


class TestGet:
    def test_shows_the_fields_of_the_customer(self, run: Run, customer: Customer) -> None:
        shown = dict(lines(run("customers", "get", "u-1")))
        assert shown["stripe_id"] == customer.stripe_id
        assert shown["email"] == EMAIL
        assert shown["is_active"] == "yes"
        assert "phone" not in shown

    def test_shows_the_ids_of_its_subscriptions(
        self, run: Run, world: World, customer: Customer
    ) -> None:
        subscription = world.subscribe(customer.stripe_id)
        StripeCustomer.sync(StripeCustomer.require(USER))
        assert dict(lines(run("customers", "get", "u-1")))["subscriptions"] == subscription

    def test_takes_any_user_id(self, run: Run, world: World, customer: Customer) -> None:
        StripeCustomer.create(User(ODD_USER), EMAIL, name="Odd")
        (shown,) = objects(run("customers", "get", ODD_USER, "--json"))
        assert (shown["user_id"], shown["name"]) == (ODD_USER, "Odd")

    def test_fails_without_a_customer(self, run: Run) -> None:
        result = run("customers", "get", "u-1")
        assert result.exit_code == 1
        assert result.stderr == "error: Not Found: this user has no customer\n"

    def test_control_characters_are_not_printed(self, run: Run, world: World) -> None:
        StripeCustomer.create(USER, EMAIL, name="\x1b[2Jgone\tx")
        shown = dict(lines(run("customers", "get", "u-1")))
        assert shown["name"] == " [2Jgone x"


class TestAuthorizer:
    @pytest.fixture
    def stack_parameters(self, request: pytest.FixtureRequest) -> Json:
        return {"CustomersAuthorizer": "jwt", **request.param}

    @pytest.mark.parametrize("stack_parameters", [{}], indirect=True)
    def test_needs_a_scope_where_the_api_takes_tokens(self, run: Run) -> None:
        assert "set JwtAdminScope" in run("customers", "get", "u-1").stderr

    @pytest.mark.parametrize("stack_parameters", [{"JwtAdminScope": "admin"}], indirect=True)
    def test_uses_the_scope(self, run: Run, world: World, customer: Customer) -> None:
        world.configure(api_authorizer=Authorizer.JWT, jwt_admin_scope="admin")
        assert dict(lines(run("customers", "get", "u-1")))["stripe_id"] == customer.stripe_id


class TestUpdate:
    def test_changes_and_clears(self, run: Run, world: World, customer: Customer) -> None:
        run("customers", "update", "u-1", "name=Jane", "description=x")
        (updated,) = objects(
            run("customers", "update", "u-1", "description:=null", "phone=+32 2", "--json")
        )
        assert (updated["name"], updated["description"]) == ("Jane", None)
        assert world.stripe_customers()[0]["phone"] == "+32 2"

    def test_needs_a_field(self, run: Run) -> None:
        assert run("customers", "update", "u-1").exit_code == 2


class TestAdoptAndRelease:
    def test_adopts_and_releases(self, run: Run, world: World) -> None:
        stripe_id = world.request("POST", "/v1/customers", {"email": EMAIL})["id"]
        adopted = dict(lines(run("customers", "adopt", "u-1", stripe_id)))
        assert adopted["stripe_id"] == stripe_id
        assert run("customers", "release", "u-1").exit_code == 2
        assert lines(run("customers", "release", "u-1", "--yes")) == [["released", "u-1"]]
        assert StripeCustomer.get(USER) is None

    def test_takes_over_only_on_request(self, run: Run, world: World) -> None:
        metadata = {"stripe_integrations_token": "other/1-x"}
        stripe_id = world.request("POST", "/v1/customers", {"metadata": metadata})["id"]
        assert run("customers", "adopt", "u-1", stripe_id).exit_code == 1
        assert run("customers", "adopt", "u-1", stripe_id, "--take-over").exit_code == 0

    def test_release_without_a_customer_fails(self, run: Run) -> None:
        result = run("customers", "release", "u-1", "--yes")
        assert result.exit_code == 1
        assert result.stderr == "error: CustomerNotFoundError: this user has no customer\n"


class TestSync:
    def test_updates_from_stripe(self, run: Run, world: World, customer: Customer) -> None:
        world.rename(customer.stripe_id, "Newer")
        world.time += 100
        assert dict(lines(run("customers", "sync", "u-1")))["name"] == "Newer"


class TestDelete:
    def test_asks_and_soft_deletes(self, run: Run, customer: Customer) -> None:
        assert run("customers", "delete", "u-1").exit_code == 2
        assert StripeCustomer.get(USER)
        assert objects(run("customers", "delete", "u-1", "--yes", "--json")) == [{"deleted": "u-1"}]
        assert StripeCustomer.get(USER) is None


class TestErase:
    def test_asks_and_erases_a_user(self, run: Run, world: World, customer: Customer) -> None:
        refused = run("customers", "erase", "u-1")
        assert refused.exit_code == 2
        assert refused.stderr == (
            "error: this asks for confirmation: without a terminal, give --yes\n"
        )
        done = lines(run("customers", "erase", "u-1", "--yes"))
        assert done == [[customer.stripe_id, "done"]]
        assert not world.items(record_type="Customer")
        assert [each["id"] for each in world.stripe_customers()] == [customer.stripe_id]

    def test_erases_a_customer_on_stripe_too(
        self, run: Run, world: World, customer: Customer
    ) -> None:
        target = ("--customer", customer.stripe_id)
        run("customers", "erase", *target, "--delete-on-stripe", "--yes")
        assert world.stripe_customers() == []

    def test_deletion_that_stripe_refuses_fails(
        self, run: Run, world: World, customer: Customer
    ) -> None:
        world.stripe.faults.fail_next(None, match="DELETE *", status=400)
        result = run("customers", "erase", "u-1", "--delete-on-stripe", "--yes", "--json")
        assert result.exit_code == 1
        assert json.loads(result.stdout) == {"customer": customer.stripe_id, "on_stripe": "refused"}

    @pytest.mark.parametrize("target", [(), ("u-1", "--customer", "cus_1")])
    def test_takes_either_a_user_or_a_customer(self, run: Run, target: tuple[str, ...]) -> None:
        assert run("customers", "erase", *target, "--yes").exit_code == 2


class TestExport:
    @pytest.mark.parametrize("user_id", ["user-1", ODD_USER, '"}'])
    def test_writes_items_of_user(self, run: Run, world: World, user_id: str) -> None:
        StripeCustomer.create(User(user_id), EMAIL)
        StripeCustomer.create(User("other"), EMAIL)
        items = objects(run("customers", "export", user_id))
        assert {item["record_type"] for item in items} == {"Customer", "CustomerClaim", "Pointer"}
        assert {item["user_id"] for item in items if "user_id" in item} == {user_id}

    @pytest.mark.parametrize("before", [None, 0o644])
    def test_file_is_readable_by_its_owner_alone(
        self, run: Run, customer: Customer, tmp_path: Path, before: int | None
    ) -> None:
        path = tmp_path / "user.jsonl"
        if before:
            path.write_text("older")
            path.chmod(before)
        (written,) = objects(run("customers", "export", "u-1", "--out", str(path), "--json"))
        assert written == {"file": str(path), "items": 3}
        assert len(path.read_text().splitlines()) == 3
        assert stat.S_IMODE(path.stat().st_mode) == 0o600

    def test_fails_where_nothing_is_stored(self, run: Run, tmp_path: Path) -> None:
        path = tmp_path / "user.jsonl"
        assert run("customers", "export", "u-1", "--out", str(path)).exit_code == 1
        assert not path.exists()

    def test_file_that_can_not_be_written_is_one_line(
        self, run: Run, customer: Customer, tmp_path: Path
    ) -> None:
        result = run("customers", "export", "u-1", "--out", str(tmp_path))
        assert result.exit_code == 1
        assert "Is a directory" in result.stderr
        assert len(result.stderr.splitlines()) == 1


class TestList:
    def test_has_active_customers_newest_first(
        self, run: Run, world: World, customer: Customer
    ) -> None:
        world.time += 10
        newer = StripeCustomer.create(User("u-2"), EMAIL)
        found = [row[:2] for row in lines(run("customers", "list"))]
        assert found == [["u-2", newer.stripe_id], ["u-1", customer.stripe_id]]
        part = run("customers", "list", "--limit", "1")
        assert len(lines(part)) == 1
        assert part.stderr == "there are more than these 1: --limit shows more\n"
        assert run("customers", "list", "--limit", "2").stderr == ""

    def test_has_unassigned_customers(self, run: Run, world: World, customer: Customer) -> None:
        world.configure(unassigned_customers=UnassignedCustomers.STORE)
        stripe_id = world.request("POST", "/v1/customers", {"email": EMAIL})["id"]
        world.deliver_and_apply()
        (found,) = objects(run("customers", "list", "--state", "unassigned", "--json"))
        assert (found["user"], found["customer"]) == (None, stripe_id)

    def test_has_incomplete_creations(self, run: Run, world: World, customer: Customer) -> None:
        CustomerClaim.acquire("u-2", {"stripe": {}, "local": {}})
        (found,) = objects(run("customers", "list", "--state", "incomplete", "--json"))
        assert found == {"user": "u-2", "customer": None, "created": "2027-01-15T08:00:00Z"}

    def test_asks_stripe_for_an_e_mail(self, run: Run, world: World, customer: Customer) -> None:
        world.time += 10
        other = world.request("POST", "/v1/customers", {"email": EMAIL})["id"]
        world.request("POST", "/v1/customers", {"email": f"other-{EMAIL}"})
        found = objects(run("customers", "list", "--email", EMAIL, "--json"))
        assert [(each["user"], each["customer"]) for each in found] == [
            (None, other),
            ("u-1", customer.stripe_id),
        ]
        assert lines(run("customers", "list", "--email", EMAIL.upper())) == []

    @pytest.mark.parametrize("given", [("",), (EMAIL, "--state", "active")])
    def test_refuses_an_empty_e_mail_and_one_with_a_state(
        self, run: Run, given: tuple[str, ...]
    ) -> None:
        assert run("customers", "list", "--email", *given).exit_code == 2

    def test_refuses_unknown_state(self, run: Run) -> None:
        assert "must be one of active" in run("customers", "list", "--state", "lost").stderr
