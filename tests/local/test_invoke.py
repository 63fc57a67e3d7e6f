"""The events of `make invoke`. tests/local_cloud/test_local.py invokes the functions with them."""

from __future__ import annotations

import base64
import json
import time
from pathlib import Path
from typing import Any

import pytest

from local import invoke
from local.cloud import CloudError
from local.invoke import EVENTS, NEED_CUSTOMER, NEED_SWEEP, UsageError, event_for, main, signed
from local.running import FUNCTIONS, RunningCloud
from stripe_integrations.entrypoints.http import Request
from stripe_integrations.entrypoints.webhook_signature import verify

SECRET = "whsec_test"
UNREACHABLE = RunningCloud("http://127.0.0.1:9")


def verify_as_webhook(event: dict[str, Any]) -> None:
    """Verify the signature of a webhook's event as the function does."""
    request = Request(event)
    verify(request.body, request.headers.get("stripe-signature"), [SECRET], time.time())


class TestSigned:
    def test_is_accepted(self) -> None:
        verify_as_webhook(signed(json.loads((EVENTS / "link_customer.json").read_text()), SECRET))

    def test_is_accepted_in_base64(self) -> None:
        body = base64.b64encode('{"name": "ü"}'.encode()).decode()
        verify_as_webhook(signed({"body": body, "isBase64Encoded": True}, SECRET))

    def test_replaces_signature_under_any_name(self) -> None:
        event = signed({"headers": {"Stripe-Signature": "t=1", "accept": "*/*"}}, SECRET)
        assert sorted(event["headers"]) == ["accept", "content-length", "stripe-signature"]


class TestEventFor:
    @pytest.mark.parametrize("function", sorted({*FUNCTIONS} - {*NEED_CUSTOMER, *NEED_SWEEP}))
    def test_example_without_customer_is_passed_on(self, function: str) -> None:
        example = json.loads((EVENTS / f"{function}.json").read_text())
        assert event_for(UNREACHABLE, function) == example

    def test_other_event_is_passed_on(self, tmp_path: Path) -> None:
        file = tmp_path / "get_customer.json"
        file.write_text('{"rawPath": "/customers/cus_ExampleJenny01"}')
        event = event_for(UNREACHABLE, "get_customer", str(file))
        assert event == {"rawPath": "/customers/cus_ExampleJenny01"}

    @pytest.mark.parametrize("function", ["", "GetCustomer", "../get_customer"])
    def test_unknown_function_is_refused(self, function: str) -> None:
        with pytest.raises(UsageError, match="The functions are adopt_customer, apply_event"):
            event_for(UNREACHABLE, function)

    @pytest.mark.parametrize("content", [None, "", "{", "[]", "null"])
    def test_file_without_an_event_is_refused(self, tmp_path: Path, content: str | None) -> None:
        file = tmp_path / "event.json"
        if content is not None:
            file.write_text(content)
        with pytest.raises(UsageError, match=r"event\.json"):
            event_for(UNREACHABLE, "get_customer", str(file))

    def test_failure_to_create_customer_is_raised(self, monkeypatch: pytest.MonkeyPatch) -> None:
        refusal = {"statusCode": 502, "body": '{"type": "stripe-refused"}'}
        monkeypatch.setattr(RunningCloud, "invoke", lambda *_: refusal)
        with pytest.raises(CloudError, match="stripe-refused"):
            event_for(UNREACHABLE, "get_customer")


class TestMain:
    @pytest.mark.parametrize(
        ("function", "message"),
        [("replay_events", "`make serve` runs is not usable"), ("nope", "no function 'nope'")],
    )
    def test_prints_what_is_wrong(
        self,
        function: str,
        message: str,
        monkeypatch: pytest.MonkeyPatch,
        capsys: pytest.CaptureFixture[str],
    ) -> None:
        monkeypatch.setattr("sys.argv", ["invoke", "--function", function])
        monkeypatch.setattr(invoke, "running_cloud", lambda: UNREACHABLE)
        assert main() == 1
        assert message in capsys.readouterr().err
