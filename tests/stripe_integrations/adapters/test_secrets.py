"""Secrets by name, from Secrets Manager or the Parameter Store."""

from __future__ import annotations

from typing import Any

import boto3
import pytest

from stripe_integrations.adapters import secrets
from stripe_integrations.config import Settings
from stripe_integrations.errors import ConfigurationError, SecretUnavailableError
from tests.world import hooked, time_out


@pytest.fixture(autouse=True)
def empty_cache(aws: None) -> None:
    secrets._provider.cache_clear()


def settings(**values: Any) -> Settings:
    return Settings(table_name="customers", **values)


class TestStores:
    def test_secret_is_cached_until_refreshed(self) -> None:
        client = boto3.client("secretsmanager")
        arn = client.create_secret(Name="stripe/key", SecretString="sk_test_one\n")["ARN"]
        named = settings(api_key_name="secretsmanager:stripe/key")

        assert secrets.api_key(named) == "sk_test_one"
        client.put_secret_value(SecretId="stripe/key", SecretString="sk_test_two")
        assert secrets.api_key(named) == "sk_test_one"
        assert secrets.api_key(named, refresh=True) == "sk_test_two"
        client.delete_secret(SecretId=arn, ForceDeleteWithoutRecovery=True)

    def test_parameter_is_decrypted(self) -> None:
        client = boto3.client("ssm")
        client.put_parameter(
            Name="/stripe/webhook", Value="whsec_new\nwhsec_old", Type="SecureString"
        )
        named = settings(webhook_secret_name="ssm:/stripe/webhook")
        assert secrets.webhook_secrets(named) == ["whsec_new", "whsec_old"]
        client.delete_parameter(Name="/stripe/webhook")

    @pytest.mark.parametrize(
        "name", ["secretsmanager:missing", "ssm:/missing", "file:/etc/passwd", "stripe/key"]
    )
    def test_unreadable_secret_is_configuration_error(self, name: str) -> None:
        """A plain value does not replace a secret that is configured by name."""
        named = settings(webhook_secret="whsec_plain", webhook_secret_name=name)
        with pytest.raises(ConfigurationError):
            secrets.webhook_secrets(named)

    def test_timeout_is_no_configuration_error(self) -> None:
        client = secrets._provider("ssm").client
        with hooked(client, "before-send.ssm", time_out), pytest.raises(SecretUnavailableError):
            secrets.webhook_secrets(settings(webhook_secret_name="ssm:/stripe/webhook"))


class TestApiKey:
    @pytest.mark.parametrize("key", [None, "", "  ", "whsec_x", "sk_live_x", "pk_test_x"])
    def test_refuses_key_that_is_not_of_the_mode(self, key: str | None) -> None:
        with pytest.raises(ConfigurationError) as refusal:
            secrets.api_key(settings(api_key=key))
        assert not (key or "").strip() or str(key) not in str(refusal.value)

    @pytest.mark.parametrize(("livemode", "key"), [(False, "rk_test_x"), (True, "sk_live_x")])
    def test_accepts_key_of_the_mode(self, livemode: bool, key: str) -> None:
        assert secrets.api_key(settings(livemode=livemode, api_key=key)) == key
