"""`webhook` and `key`: the endpoint on the Stripe double, the secrets on moto."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import boto3
import pytest
import stripe

from local.stripe_double.client import StripeDoubleClient
from stripe_integrations.actions.events.event_types import applied_event_types
from stripe_integrations.config import API_VERSION
from tests.cli.conftest import Json, Run, lines, objects
from tests.world import World

URL = "https://hook"
KEY = "sk_test_double"
SECRET_NAME = "/".join(("stripe", "webhook-secret"))


@pytest.fixture(autouse=True)
def account(world: World, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The account has no endpoint; clients of Stripe's library reach the double."""
    world.stripe.webhooks.endpoints.clear()
    client = stripe.StripeClient

    def connected(key: str, **options: Any) -> Any:
        return client(key, http_client=StripeDoubleClient(world.stripe), **options)

    monkeypatch.setattr(stripe, "StripeClient", connected)
    monkeypatch.setenv("STRIPE_API_KEY", KEY)
    yield
    store = boto3.client("secretsmanager")
    for found in store.list_secrets()["SecretList"]:
        store.delete_secret(SecretId=found["Name"], ForceDeleteWithoutRecovery=True)


def stored(name: str = SECRET_NAME) -> str:
    value: str = boto3.client("secretsmanager").get_secret_value(SecretId=name)["SecretString"]
    return value


class TestCreate:
    def test_registers_what_this_release_needs(self, run: Run, world: World) -> None:
        (created,) = objects(run("webhook", "create", "--event", "invoice.paid", "--json"))
        (endpoint,) = world.stripe.webhooks.endpoints.values()
        assert created["endpoint"] == endpoint.id
        assert (endpoint.url, endpoint.api_version) == (URL, API_VERSION)
        assert set(endpoint.enabled_events) == {*applied_event_types(), "invoice.paid"}
        assert stored() == endpoint.secrets[0]

    def test_secret_is_not_printed(self, run: Run, world: World) -> None:
        assert "whsec" not in run("webhook", "create").output

    def test_second_of_the_same_version_is_refused(self, run: Run, world: World) -> None:
        run("webhook", "create")
        result = run("webhook", "create")
        assert result.exit_code == 1
        assert "stripe-customers webhook update" in result.stderr
        assert len(world.stripe.webhooks.endpoints) == 1

    def test_secret_is_stored_before_that_of_an_older_version(self, run: Run, world: World) -> None:
        old = world.stripe.webhooks.add_endpoint(URL, "whsec_old", ["*"], "2024-06-20")
        boto3.client("secretsmanager").create_secret(Name=SECRET_NAME, SecretString="whsec_old")
        run("webhook", "create")
        new, older = stored().split()
        assert older == "whsec_old"
        assert lines(run("webhook", "delete", old.id, "--yes")) == [
            ["deleted", old.id],
            ["stored_secrets", "1"],
        ]
        assert stored() == new

    def test_endpoint_whose_secret_cannot_be_stored_is_deleted(
        self, run: Run, world: World, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def fail(*_: object) -> None:
            raise OSError

        where = "stripe_integrations_cli.secret_store.SecretStore.write_signing_secrets"
        monkeypatch.setattr(where, fail)
        assert run("webhook", "create").exit_code == 1
        assert not world.stripe.webhooks.endpoints

    def test_key_of_the_other_mode_is_refused(self, run: Run, world: World) -> None:
        result = run("webhook", "create", env={"STRIPE_API_KEY": "sk_live_x"})
        assert result.exit_code == 1
        assert "is in test mode" in result.stderr
        assert "sk_live_x" not in result.output

    def test_key_is_a_line_of_standard_input_without_the_variable(
        self, run: Run, world: World
    ) -> None:
        given = {"env": {"STRIPE_API_KEY": None}}
        assert run("webhook", "create", input="\n", **given).exit_code == 2
        assert run("webhook", "create", input=f"{KEY}\n", **given).exit_code == 0

    def test_key_that_stripe_refuses_is_one_line(self, run: Run, world: World) -> None:
        world.stripe.api_keys = {"sk_test_other"}
        result = run("webhook", "create")
        assert result.exit_code == 1
        assert result.stderr.startswith("error: Stripe: ")
        assert len(result.stderr.splitlines()) == 1


class TestStatus:
    def test_finds_nothing_on_an_endpoint_of_this_release(self, run: Run, world: World) -> None:
        run("webhook", "create")
        ((_, state, version, _, problem),) = lines(run("webhook", "status"))
        assert (state, version, problem) == ("enabled", API_VERSION, "")

    def test_names_what_differs(self, run: Run, world: World) -> None:
        run("webhook", "create")
        (endpoint,) = world.stripe.webhooks.endpoints.values()
        endpoint.enabled_events.remove("customer.deleted")
        endpoint.is_disabled = True
        result = run("webhook", "status")
        assert result.exit_code == 1
        assert "is disabled" in result.stdout
        assert "lacks customer.deleted" in result.stdout

    def test_names_what_is_missing(self, run: Run, world: World) -> None:
        world.stripe.webhooks.add_endpoint(URL, "whsec_old", ["*"], "2024-06-20")
        world.stripe.webhooks.add_endpoint("https://elsewhere", "whsec_x", ["*"], API_VERSION)
        result = run("webhook", "status")
        assert result.exit_code == 1
        assert f"no endpoint of {URL} has the version" in result.stderr
        assert "no signing secret is stored" in result.stderr

    def test_names_two_endpoints_of_this_release(self, run: Run, world: World) -> None:
        run("webhook", "create")
        second = world.stripe.webhooks.add_endpoint(URL, "whsec_x", ["*"], API_VERSION)
        result = run("webhook", "status")
        assert result.exit_code == 1
        assert "2 endpoints of this version: delete all but one of " in result.stderr
        before = stored()
        assert run("webhook", "delete", second.id, "--yes").exit_code == 0
        assert run("webhook", "status").exit_code == 0
        assert stored() == before


class TestUpdate:
    def test_enables_and_adds_types(self, run: Run, world: World) -> None:
        run("webhook", "create")
        (endpoint,) = world.stripe.webhooks.endpoints.values()
        endpoint.enabled_events = ["invoice.paid"]
        endpoint.is_disabled = True
        (changed,) = objects(run("webhook", "update", "--event", "charge.refunded", "--json"))
        assert changed["problem"] is None
        assert {"invoice.paid", "charge.refunded"} < set(endpoint.enabled_events)
        assert run("webhook", "status").exit_code == 0

    def test_moves_an_endpoint_to_the_url_of_the_stack(self, run: Run, world: World) -> None:
        endpoint = world.stripe.webhooks.add_endpoint("https://old", "whsec_x", ["*"], API_VERSION)
        assert run("webhook", "update").exit_code == 1
        assert run("webhook", "update", endpoint.id).exit_code == 2
        assert endpoint.url == "https://old"
        run("webhook", "update", endpoint.id, "--yes")
        assert (endpoint.url, endpoint.enabled_events) == (URL, ["*"])


class TestDelete:
    """Only what has been replaced is deleted, and no secret that is still used."""

    def test_asks(self, run: Run, world: World) -> None:
        run("webhook", "create")
        (endpoint,) = world.stripe.webhooks.endpoints.values()
        assert run("webhook", "delete", endpoint.id).exit_code == 2
        assert world.stripe.webhooks.endpoints

    def test_endpoint_of_other_software_remains(self, run: Run, world: World) -> None:
        run("webhook", "create")
        other = world.stripe.webhooks.add_endpoint("https://other", "whsec_x", ["*"], API_VERSION)
        result = run("webhook", "delete", other.id, "--yes")
        assert result.exit_code == 1
        assert result.stderr == f"error: the stack's URL has no endpoint {other.id}\n"
        assert other.id in world.stripe.webhooks.endpoints

    def test_endpoint_of_this_release_remains_while_there_is_another(
        self, run: Run, world: World
    ) -> None:
        old = world.stripe.webhooks.add_endpoint(URL, "whsec_old", ["*"], "2024-06-20")
        run("webhook", "create")
        (new,) = world.stripe.webhooks.endpoints.keys() - {old.id}
        assert run("webhook", "delete", new, "--yes").exit_code == 1
        assert run("webhook", "delete", old.id, "--yes").exit_code == 0
        assert run("webhook", "delete", new, "--yes").exit_code == 0

    def test_secrets_remain_while_two_endpoints_do(self, run: Run, world: World) -> None:
        first, _ = (
            world.stripe.webhooks.add_endpoint(URL, f"whsec_{version}", ["*"], version)
            for version in ("2023-10-16", "2024-06-20")
        )
        boto3.client("secretsmanager").create_secret(Name=SECRET_NAME, SecretString="whsec_old")
        run("webhook", "create")
        deleted = dict(lines(run("webhook", "delete", first.id, "--yes")))
        assert deleted["stored_secrets"] == "2"
        assert len(stored().split()) == 2


class TestPublishTypes:
    @pytest.fixture
    def stack_parameters(self) -> Json:
        return {"PublishTypes": "invoice.paid,charge.*", "EventBusName": "bus"}

    def test_are_enabled_one_by_one(self, run: Run, world: World) -> None:
        run("webhook", "create")
        (endpoint,) = world.stripe.webhooks.endpoints.values()
        assert "invoice.paid" in endpoint.enabled_events
        assert "charge.*" not in endpoint.enabled_events


class TestRoll:
    def test_both_are_stored_until_the_old_one_has_expired(self, run: Run) -> None:
        boto3.client("secretsmanager").create_secret(Name=SECRET_NAME, SecretString="whsec_old")
        assert lines(run("webhook", "roll", input="whsec_new\n")) == [["stored_secrets", "2"]]
        assert stored() == "whsec_new whsec_old"
        run("webhook", "roll", input="whsec_new\n")
        assert stored() == "whsec_new whsec_old"
        assert lines(run("webhook", "roll", "--finish", "--yes")) == [["stored_secrets", "1"]]
        assert stored() == "whsec_new"
        assert lines(run("webhook", "roll", "--finish")) == [["stored_secrets", "1"]]

    def test_asks_before_the_old_one_is_forgotten(self, run: Run) -> None:
        both = "whsec_new whsec_old"
        boto3.client("secretsmanager").create_secret(Name=SECRET_NAME, SecretString=both)
        assert run("webhook", "roll", "--finish").exit_code == 2
        assert stored() == both

    def test_refuses_value_that_is_not_a_secret(self, run: Run) -> None:
        result = run("webhook", "roll", input="sk_test_double\n")
        assert result.exit_code == 1
        assert "sk_test" not in result.stderr
        assert run("webhook", "roll", "--finish").exit_code == 1


class TestParameterStore:
    @pytest.fixture
    def stack_parameters(self) -> Json:
        return {"SecretStore": "ssm"}

    def test_has_the_secrets_under_a_leading_slash(self, run: Run) -> None:
        run("webhook", "roll", input="whsec_old\n")
        run("webhook", "roll", input="whsec_new\n")
        run("key", "set", input="rk_test_x\n")
        store = boto3.client("ssm")
        for name, value in ((SECRET_NAME, "whsec_new whsec_old"), ("stripe/api-key", "rk_test_x")):
            found = store.get_parameter(Name=f"/{name}", WithDecryption=True)["Parameter"]
            assert (found["Value"], found["Type"]) == (value, "SecureString")
            store.delete_parameter(Name=f"/{name}")


class TestKey:
    def test_is_stored_and_not_printed(self, run: Run) -> None:
        result = run("key", "set", input="rk_test_secret\n")
        assert lines(result) == [["stored", "stripe/api-key"]]
        assert stored("stripe/api-key") == "rk_test_secret"
        assert "rk_test_secret" not in result.output

    def test_without_a_permission_is_refused(self, run: Run, world: World) -> None:
        world.stripe.faults.fail_next(status=403, match="GET /v1/events")
        result = run("key", "set", input="rk_test_x\n")
        assert result.stderr == "error: the key may not read events: nothing was changed\n"

    def test_that_is_a_secret_key_is_refused(self, run: Run) -> None:
        assert run("key", "set", input="sk_test_x\n").exit_code == 1

    def test_of_the_other_mode_is_refused(self, run: Run) -> None:
        assert run("key", "set", input="rk_live_x\n").exit_code == 1
        for wrong in ("nonsense", "rk_test_", "rk_test_a b"):
            assert run("key", "set", input=f"{wrong}\n").exit_code == 1


class TestWithoutWebhook:
    def test_status_fails(self, run: Run, world: World, monkeypatch: pytest.MonkeyPatch) -> None:
        from stripe_integrations_cli.stack import Stack

        created = Stack.__init__

        def without_url(self: Stack, *given: Any) -> None:
            created(self, *given)
            del self.outputs["WebhookUrl"]

        monkeypatch.setattr(Stack, "__init__", without_url)
        assert "has no webhook" in run("webhook", "status").stderr
