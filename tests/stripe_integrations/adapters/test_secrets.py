"""Secrets by name, from Secrets Manager or the Parameter Store."""

from __future__ import annotations

import time
from typing import Any

import boto3
import pytest

from stripe_integrations.adapters import aws, secrets
from stripe_integrations.config import Settings
from stripe_integrations.errors import ConfigurationError, SecretUnavailableError
from tests.world import hooked, time_out


@pytest.fixture(autouse=True)
def empty_cache(request: pytest.FixtureRequest) -> None:
    request.getfixturevalue("aws")
    secrets.forget()
    aws.forget_clients()


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

    def test_secret_is_read_again_when_it_expires(self, monkeypatch: pytest.MonkeyPatch) -> None:
        client = boto3.client("ssm")
        named = settings(api_key_name="ssm:/stripe/key")
        client.put_parameter(Name="/stripe/key", Value="sk_test_one", Type="String")
        assert secrets.api_key(named) == "sk_test_one"
        client.put_parameter(Name="/stripe/key", Value="sk_test_two", Type="String", Overwrite=True)
        now = time.time()
        for seconds, key in ((299, "sk_test_one"), (301, "sk_test_two")):
            monkeypatch.setattr("time.time", lambda later=now + seconds: later)
            assert secrets.api_key(named) == key
        monkeypatch.undo()
        client.delete_parameter(Name="/stripe/key")

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
        client = aws.client("ssm")
        with hooked(client, "before-send.ssm", time_out), pytest.raises(SecretUnavailableError):
            secrets.webhook_secrets(settings(webhook_secret_name="ssm:/stripe/webhook"))

    def test_binary_secret_is_text(self) -> None:
        client = boto3.client("secretsmanager")
        for number, (stored, expected) in enumerate(
            (
                (b"\xef\xbb\xbfwhsec_one\r\nwhsec_two", ["whsec_one", "whsec_two"]),
                ("whsec_one".encode("utf-16"), None),
            )
        ):
            client.create_secret(Name=f"binary/{number}", SecretBinary=stored)
            named = settings(webhook_secret_name=f"secretsmanager:binary/{number}")
            if expected:
                assert secrets.webhook_secrets(named) == expected
            else:
                with pytest.raises(ConfigurationError, match="UTF-8"):
                    secrets.webhook_secrets(named)
            client.delete_secret(SecretId=f"binary/{number}", ForceDeleteWithoutRecovery=True)

    def test_missing_credentials_or_region_are_configuration_error(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        named = settings(api_key_name="secretsmanager:stripe/key")
        for variable in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
            monkeypatch.delenv(variable)
        monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
        for name in ("AWS_SHARED_CREDENTIALS_FILE", "AWS_CONFIG_FILE"):
            monkeypatch.setenv(name, "/none")
        aws.forget_clients()
        with pytest.raises(ConfigurationError, match="NoCredentialsError"):
            secrets.api_key(named)
        for variable in ("AWS_DEFAULT_REGION", "AWS_REGION"):
            monkeypatch.delenv(variable, raising=False)
        aws.forget_clients()
        with pytest.raises(ConfigurationError, match="NoRegionError"):
            secrets.api_key(named)


FORMS = [
    "{}",
    "{}\n",
    "\ufeff{}",
    '\ufeff"{}"\r\n',
    "'{}'",
    '{{"value": "{}"}}',
    '{{"user": "stripe", "number": 1, "value": " {} "}}',
    '{{"API": "sk_test_other", "hook": "{}"}}',
    '\ufeff {{"value": "{}"}}',
]
"""What editors, shells and consoles store for a secret."""
MISTAKES = [
    '""',
    "''",
    "\ufeff",
    "{}",
    "[]",
    "null",
    '{"value": ""}',
    '{"value": ["whsec_x", "sk_test_x"]}',
    '{"value": {"nested": "whsec_x sk_test_x"}}',
    '{"one": "whsec_x", "two": "whsec_y", "three": "sk_test_x", "four": "sk_test_y"}',
    '{"value": "whsec_x sk_test_x"}',
    '{"whsec_x": "sk_"}',
    "{" * 10_000,
    "changeme",
    "whsec_",
    "whsec_…",
    "whsec_x,whsec_y",
    "whsec_x, whsec_y",
    "whsec_x changeme",
    "Bearer whsec_x",
    "WHSEC_X",
    "“whsec_x”",
    "sk_test_",
    "sk_test_x,sk_test_y",
    "sk_test_x sk_test_y",
    "rk_live_x",
    "pk_test_x",
    "https://example.com",
]


class TestSecretFormats:
    """A signing secret or an API key as it is stored by an editor, a shell or a console."""

    @pytest.mark.parametrize("form", FORMS)
    def test_accepts_quotes_whitespace_and_json(self, form: str) -> None:
        stored = settings(webhook_secret=form.format("whsec_x+/="))
        assert secrets.webhook_secrets(stored) == ["whsec_x+/="]
        form = form.replace("sk_test_other", "whsec_other")
        assert secrets.api_key(settings(api_key=form.format("sk_test_x"))) == "sk_test_x"

    @pytest.mark.parametrize("stored", ['{"value": "whsec_x\\nwhsec_y"}', '"whsec_x whsec_y"'])
    def test_accepts_several_signing_secrets(self, stored: str) -> None:
        assert secrets.webhook_secrets(settings(webhook_secret=stored)) == ["whsec_x", "whsec_y"]

    def test_key_of_mode_is_chosen(self) -> None:
        both = '{"live": "sk_live_x", "test": "sk_test_x"}'
        for livemode, key in ((False, "sk_test_x"), (True, "sk_live_x")):
            assert secrets.api_key(settings(livemode=livemode, api_key=both)) == key

    @pytest.mark.parametrize("stored", MISTAKES)
    def test_anything_else_is_configuration_error(self, stored: str) -> None:
        for read, given in (
            (secrets.webhook_secrets, settings(webhook_secret=stored)),
            (secrets.webhook_secrets, settings(webhook_secret="sk_test_x")),
            (secrets.webhook_secrets, settings(webhook_secret="rk_live_x")),
            (secrets.api_key, settings(api_key=stored)),
            (secrets.api_key, settings(api_key="whsec_x")),
        ):
            with pytest.raises(ConfigurationError) as refusal:
                read(given)
            for value in ("whsec_x", "sk_test_x", "changeme", "https"):
                assert value not in str(refusal.value)


class TestApiKey:
    @pytest.mark.parametrize("key", [None, "", "  ", "whsec_x", "sk_live_x", "pk_test_x"])
    def test_refuses_key_that_is_not_of_the_mode(self, key: str | None) -> None:
        with pytest.raises(ConfigurationError) as refusal:
            secrets.api_key(settings(api_key=key))
        assert not (key or "").strip() or str(key) not in str(refusal.value)

    @pytest.mark.parametrize(("livemode", "key"), [(False, "rk_test_x"), (True, "sk_live_x")])
    def test_accepts_key_of_the_mode(self, livemode: bool, key: str) -> None:
        assert secrets.api_key(settings(livemode=livemode, api_key=key)) == key
