"""Secrets come by name from Secrets Manager or the Parameter Store, and are cached."""

from __future__ import annotations

from typing import Any

import boto3
import pytest
from botocore.exceptions import ReadTimeoutError

from stripe_integrations.adapters import secrets
from stripe_integrations.config import Settings
from stripe_integrations.errors import ConfigurationError, SecretUnavailableError


@pytest.fixture(autouse=True)
def empty_cache(aws: None) -> None:
    secrets._provider.cache_clear()


def settings(**values: str) -> Settings:
    return Settings(table_name="customers", **values)  # type: ignore[arg-type]


def test_a_secret_of_secrets_manager_is_cached_until_it_is_asked_for_anew() -> None:
    client = boto3.client("secretsmanager")
    arn = client.create_secret(Name="stripe/key", SecretString="sk_test_one\n")["ARN"]
    named = settings(api_key_name="secretsmanager:stripe/key")

    assert secrets.api_key(named) == "sk_test_one"
    client.put_secret_value(SecretId="stripe/key", SecretString="sk_test_two")
    assert secrets.api_key(named) == "sk_test_one"
    assert secrets.api_key(named, refresh=True) == "sk_test_two"
    client.delete_secret(SecretId=arn, ForceDeleteWithoutRecovery=True)


def test_a_parameter_of_the_parameter_store_is_decrypted() -> None:
    client = boto3.client("ssm")
    client.put_parameter(Name="/stripe/webhook", Value="whsec_new\nwhsec_old", Type="SecureString")
    named = settings(webhook_secret_name="ssm:/stripe/webhook")
    assert secrets.webhook_secrets(named) == ["whsec_new", "whsec_old"]
    client.delete_parameter(Name="/stripe/webhook")


def test_a_name_counts_more_than_a_plain_value() -> None:
    named = settings(api_key="sk_test_plain", api_key_name="secretsmanager:missing")
    with pytest.raises(ConfigurationError):
        secrets.api_key(named)


@pytest.mark.parametrize(
    "name", ["secretsmanager:missing", "ssm:/missing", "file:/etc/passwd", "stripe/key"]
)
def test_a_secret_that_cannot_be_read_says_so(name: str) -> None:
    with pytest.raises(ConfigurationError):
        secrets.webhook_secrets(settings(webhook_secret_name=name))


def test_a_store_that_cannot_be_asked_now_is_no_mistake_of_the_deployment() -> None:
    def out_of_reach(request: Any, **_: Any) -> None:
        raise ReadTimeoutError(endpoint_url=request.url)

    client = secrets._provider("ssm").client
    client.meta.events.register("before-send.ssm", out_of_reach)
    with pytest.raises(SecretUnavailableError):
        secrets.webhook_secrets(settings(webhook_secret_name="ssm:/stripe/webhook"))
    client.meta.events.unregister("before-send.ssm", out_of_reach)


@pytest.mark.parametrize("key", [None, "", "  ", "whsec_x", "sk_live_x", "pk_test_x"])
def test_an_api_key_that_cannot_be_right_is_refused(key: str) -> None:
    with pytest.raises(ConfigurationError) as refusal:
        secrets.api_key(settings(api_key=key))
    assert not key or key.strip() == "" or key not in str(refusal.value)


def test_keys_of_the_right_mode_are_taken() -> None:
    assert secrets.api_key(settings(api_key="rk_test_x")) == "rk_test_x"
    live = Settings(table_name="customers", livemode=True, api_key="sk_live_x")
    assert secrets.api_key(live) == "sk_live_x"
