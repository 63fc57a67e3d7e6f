"""Settings from the environment."""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import stripe

from stripe_integrations.config import (
    API_VERSION,
    Authorizer,
    ExistingCustomers,
    Settings,
    UnassignedCustomers,
    WebhookIngress,
)
from stripe_integrations.errors import ConfigurationError

REQUIRED = {"TABLE_NAME": "customers"}


class TestSettings:
    def test_defaults(self) -> None:
        settings = Settings.from_environment(REQUIRED)
        assert settings == Settings(table_name="customers")
        assert (settings.livemode, settings.event_retention_days) == (False, 90)
        assert (settings.stored_records, settings.event_handlers) == (None, {})
        assert settings.publish_types == ()
        assert settings.deployment_name is None
        assert settings.unassigned_customers is UnassignedCustomers.IGNORE
        assert settings.adopt_from is None

    def test_every_variable_is_read(self) -> None:
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
                "UNASSIGNED_CUSTOMERS": "store",
                "ADOPT_FROM": "app.user_id",
                "EVENT_RETENTION_DAYS": "31",
                "WEBHOOK_INGRESS": "eventbridge",
                "STRIPE_EVENT_SOURCE": "aws.partner/stripe.com/ed_1",
                "EVENT_BUS_NAME": "changes",
                "PUBLISH_TYPES": "invoice.paid, charge.*,*,",
                "DEAD_LETTERS_URL": "https://sqs/dead-letters",
                "ERASURE_LOG_GROUP": "/erasures",
                "DEPLOYMENT_NAME": "shop-prod",
                "EXISTING_CUSTOMERS": "check",
                "API_AUTHORIZER": "jwt",
                "JWT_ADMIN_SCOPE": "shop/admin",
                "WALK_STRIPE_PERCENT": "80",
                "WALK_WRITE_UNITS_PER_SECOND": "3000",
                "REPORTS_BUCKET": "reports",
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
            unassigned_customers=UnassignedCustomers.STORE,
            adopt_from="app.user_id",
            event_retention_days=31,
            webhook_ingress=WebhookIngress.EVENTBRIDGE,
            event_source="aws.partner/stripe.com/ed_1",
            event_bus_name="changes",
            publish_types=("invoice.paid", "charge.*", "*"),
            dead_letters_url="https://sqs/dead-letters",
            erasure_log_group="/erasures",
            deployment_name="shop-prod",
            existing_customers=ExistingCustomers.CHECK,
            api_authorizer=Authorizer.JWT,
            jwt_admin_scope="shop/admin",
            walk_stripe_percent=80,
            walk_write_units=3000,
            reports_bucket="reports",
        )

    @pytest.mark.parametrize(
        ("variable", "value"),
        [
            ("TABLE_NAME", ""),
            ("STRIPE_MODE", "production"),
            ("UNASSIGNED_CUSTOMERS", "keep"),
            ("EVENT_RETENTION_DAYS", "30"),
            ("EVENT_RETENTION_DAYS", "many"),
            ("API_AUTHORIZER", "IAM"),
            ("EXISTING_CUSTOMERS", "refuse"),
            ("PUBLISH_TYPES", "invoice"),
            ("PUBLISH_TYPES", "invoice*"),
            ("PUBLISH_TYPES", "invoice.pa*"),
            ("PUBLISH_TYPES", "invoice.**"),
            ("PUBLISH_TYPES", "*.paid"),
            ("PUBLISH_TYPES", "invoice.*.paid"),
            ("PUBLISH_TYPES", "invoice.paid charge.*"),
            ("PUBLISH_TYPES", "Invoice.paid"),
            ("PUBLISH_TYPES", "invoice.paid,.paid"),
            ("PUBLISH_TYPES", "v1.billing.meter.no_meter_found"),
            ("PUBLISH_TYPES", "v2.*"),
            ("WEBHOOK_INGRESS", "sqs"),
            ("WALK_STRIPE_PERCENT", "0"),
            ("WALK_STRIPE_PERCENT", "half"),
            ("WALK_WRITE_UNITS_PER_SECOND", "-1"),
            ("DEPLOYMENT_NAME", "shop/prod"),
            ("DEPLOYMENT_NAME", "s" * 129),
        ],
    )
    def test_invalid_variable_is_named(self, variable: str, value: str) -> None:
        with pytest.raises(ConfigurationError, match=variable):
            Settings.from_environment({**REQUIRED, variable: value})

    @pytest.mark.parametrize(
        ("key", "unassigned"),
        [
            ("app_user", "ignore"),
            ("app[user]", "store"),
            ("a" * 41, "store"),
            ("stripe_integrations_user_id", "store"),
        ],
    )
    def test_invalid_metadata_key_is_refused(self, key: str, unassigned: str) -> None:
        variables = {**REQUIRED, "UNASSIGNED_CUSTOMERS": unassigned, "ADOPT_FROM": key}
        with pytest.raises(ConfigurationError, match="ADOPT_FROM"):
            Settings.from_environment(variables)

    def test_invalid_publish_type_is_named(self) -> None:
        with pytest.raises(
            ConfigurationError, match=r"invoice\.paid, invoice\.\* or \*, not 'paid'"
        ):
            Settings.from_environment({**REQUIRED, "PUBLISH_TYPES": "invoice.*,paid"})

    def test_api_version_is_that_of_stripes_library(self) -> None:
        assert stripe.api_version == API_VERSION


class TestEventHandlers:
    """Custom handlers are registered in the module `stripe_event_handlers` of a deployment."""

    @pytest.fixture
    def module(self, monkeypatch: pytest.MonkeyPatch) -> Any:
        module = ModuleType("stripe_event_handlers")
        monkeypatch.setitem(sys.modules, module.__name__, module)
        return module

    def test_are_read_from_module(self, module: Any) -> None:
        module.HANDLERS = {"invoice.*": "billing.invoices:paid"}
        assert Settings.from_environment(REQUIRED).event_handlers == module.HANDLERS

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
    def test_invalid_mapping_is_refused(self, module: Any, handlers: Any) -> None:
        module.HANDLERS = handlers
        with pytest.raises(ConfigurationError, match="HANDLERS"):
            Settings.from_environment(REQUIRED)

    def test_missing_mapping_is_refused(self, module: Any) -> None:
        with pytest.raises(ConfigurationError, match="HANDLERS"):
            Settings.from_environment(REQUIRED)

    def test_failing_import_is_not_hidden(
        self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        (tmp_path / "stripe_event_handlers.py").write_text("import there_is_no_such_module\n")
        monkeypatch.syspath_prepend(str(tmp_path))
        with pytest.raises(ModuleNotFoundError, match="there_is_no_such_module"):
            Settings.from_environment(REQUIRED)


class TestHandlerEnvironment:
    @pytest.fixture(autouse=True)
    def _handlers(self, monkeypatch: pytest.MonkeyPatch) -> None:
        module = ModuleType("stripe_event_handlers")
        module.__dict__["HANDLERS"] = {"invoice.*": "billing.invoices:paid"}
        monkeypatch.setitem(sys.modules, module.__name__, module)

    def test_environment_without_handlers_is_refused(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.delitem(sys.modules, "stripe_event_handlers")
        with pytest.raises(ConfigurationError, match="the bundle has no custom handlers"):
            Settings.from_environment({**REQUIRED, "HANDLER_ENVIRONMENT": "BUCKET=invoices"})

    @pytest.mark.parametrize(
        ("given", "variables"),
        [
            ("", {}),
            ("BUCKET=invoices", {"BUCKET": "invoices"}),
            ("BUCKET=a,QUERY=b=c&d=e,EMPTY=", {"BUCKET": "a", "QUERY": "b=c&d=e", "EMPTY": ""}),
            # A process that has set them reads them again.
            ("TABLE_NAME=customers", {"TABLE_NAME": "customers"}),
        ],
    )
    def test_is_read(self, given: str, variables: dict[str, str]) -> None:
        environment = {"TABLE_NAME": "customers", "HANDLER_ENVIRONMENT": given}
        assert Settings.from_environment(environment).handler_environment == variables

    @pytest.mark.parametrize("given", ["BUCKET", "=a", "A=b,", "1A=b", "A-B=c", "A=b,C"])
    def test_anything_else_is_refused(self, given: str) -> None:
        with pytest.raises(ConfigurationError, match="like NAME=value"):
            Settings.from_environment({**REQUIRED, "HANDLER_ENVIRONMENT": given})

    def test_change_of_other_variable_is_refused(self) -> None:
        environment = {**REQUIRED, "HANDLER_ENVIRONMENT": "A=b,STRIPE_MODE=live"}
        with pytest.raises(ConfigurationError, match="the function's variable STRIPE_MODE"):
            Settings.from_environment({**environment, "STRIPE_MODE": "test"})
