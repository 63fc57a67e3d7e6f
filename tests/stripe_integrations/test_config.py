"""Settings come from the environment, and a wrong one says so."""

from __future__ import annotations

import subprocess
import sys
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from stripe_integrations import context
from stripe_integrations.config import API_VERSION, Settings
from stripe_integrations.errors import ConfigurationError


def test_a_deployment_needs_little() -> None:
    settings = Settings.from_environment({"TABLE_NAME": "customers"})
    assert settings == Settings(table_name="customers")
    assert (settings.livemode, settings.event_retention_days) == (False, 90)
    assert settings.stored_records is None


def test_every_setting_is_read() -> None:
    settings = Settings.from_environment(
        {
            "TABLE_NAME": "customers",
            "STRIPE_MODE": "live",
            "STRIPE_API_KEY_NAME": "ssm:/stripe/key",
            "STRIPE_WEBHOOK_SECRET_NAME": "secretsmanager:stripe/webhook",
            "STRIPE_API_KEY": "sk_live_x",
            "STRIPE_WEBHOOK_SECRET": "whsec_x",
            "STRIPE_API_BASE": "http://127.0.0.1:1/",
            "STORED_RECORDS": "Card",
            "EVENT_RETENTION_DAYS": "31",
            "EVENT_BUS_NAME": "changes",
            "DEAD_LETTERS_URL": "https://sqs/dead-letters",
            "DEPLOYMENT_NAME": "shop-prod",
            "JWT_ADMIN_SCOPE": "shop/admin",
        }
    )
    assert settings == Settings(
        table_name="customers",
        livemode=True,
        api_key_name="ssm:/stripe/key",
        webhook_secret_name="secretsmanager:stripe/webhook",
        api_key="sk_live_x",
        webhook_secret="whsec_x",
        api_base="http://127.0.0.1:1",
        stored_records=frozenset({"Card"}),
        event_retention_days=31,
        event_bus_name="changes",
        dead_letters_url="https://sqs/dead-letters",
        deployment_name="shop-prod",
        jwt_admin_scope="shop/admin",
    )


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("TABLE_NAME", ""),
        ("STRIPE_MODE", "production"),
        ("EVENT_RETENTION_DAYS", "30"),
        ("EVENT_RETENTION_DAYS", "many"),
        ("DEPLOYMENT_NAME", "shop/prod"),
        ("DEPLOYMENT_NAME", "s" * 129),
    ],
)
def test_a_wrong_setting_is_named(variable: str, value: str) -> None:
    with pytest.raises(ConfigurationError, match=variable):
        Settings.from_environment({"TABLE_NAME": "customers", variable: value})


def test_the_api_version_is_the_one_that_stripes_library_is_made_for() -> None:
    import stripe

    assert stripe.api_version == API_VERSION


def test_a_process_reads_its_settings_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TABLE_NAME", "from-the-environment")
    context._of_process.cache_clear()
    try:
        assert context.current().settings.table_name == "from-the-environment"
        assert context.current() is context.current()
    finally:
        context._of_process.cache_clear()


def test_tokens_are_not_repeated() -> None:
    made = context.Context(Settings(table_name="customers"))
    assert len({made.new_token() for _ in range(1000)}) == 1000


def test_importing_the_actions_needs_no_environment_and_loads_no_stripe() -> None:
    code = (
        "import sys\n"
        "import stripe_integrations.actions, stripe_integrations.entrypoints.http\n"
        "assert not {'stripe', 'requests', 'boto3'} & set(sys.modules), 'loaded too much'"
    )
    subprocess.run([sys.executable, "-c", code], check=True, env={})


def own_module(monkeypatch: pytest.MonkeyPatch, handlers: Any) -> None:
    """Let the deployment have a module `stripe_event_handlers`."""
    module = SimpleNamespace(HANDLERS=handlers)
    monkeypatch.setitem(sys.modules, "stripe_event_handlers", module)


def test_the_deployments_own_handlers_are_read_from_its_module(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    own_module(monkeypatch, {"invoice.*": "billing.invoices:paid"})
    settings = Settings.from_environment({"TABLE_NAME": "customers"})
    assert settings.event_handlers == {"invoice.*": "billing.invoices:paid"}


def test_a_deployment_without_such_a_module_has_no_handlers() -> None:
    assert Settings.from_environment({"TABLE_NAME": "customers"}).event_handlers == {}


@pytest.mark.parametrize(
    "handlers",
    [
        None,
        [],
        "invoice.paid",
        {"invoice.paid": None},
        {"invoice.paid": "billing"},
        {"*.paid": "billing:paid"},
        {"invoice.pa?d": "billing:paid"},
        {"a.b": ["billing:c"]},
    ],
)
def test_handlers_that_map_no_types_to_functions_are_refused(
    monkeypatch: pytest.MonkeyPatch, handlers: Any
) -> None:
    own_module(monkeypatch, handlers)
    with pytest.raises(ConfigurationError, match="HANDLERS"):
        Settings.from_environment({"TABLE_NAME": "customers"})


def test_a_module_of_handlers_that_lacks_something_is_not_taken_for_a_missing_one(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Any
) -> None:
    (tmp_path / "stripe_event_handlers.py").write_text("import there_is_no_such_module\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(ModuleNotFoundError, match="there_is_no_such_module"):
        Settings.from_environment({"TABLE_NAME": "customers"})


def test_a_module_without_handlers_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "stripe_event_handlers", ModuleType("stripe_event_handlers"))
    with pytest.raises(ConfigurationError, match="HANDLERS"):
        Settings.from_environment({"TABLE_NAME": "customers"})
