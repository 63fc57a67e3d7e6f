"""The verdict on a webhook's signature is the one that Stripe's library gives."""

from __future__ import annotations

import random
import time

import pytest
import stripe

from local.stripe_double.webhooks import sign
from stripe_integrations.entrypoints.webhook_signature import TOLERANCE_SECONDS, verify
from stripe_integrations.errors import SignatureVerificationError

SECRET = "whsec_double"
NOW = 1_800_000_000.0
BODY = '{"id": "evt_1", "name": "Jané"}'.encode()


def accepts(body: bytes, header: str | None, secrets: list[str], now: float = NOW) -> bool:
    try:
        verify(body, header, secrets, now)
    except SignatureVerificationError:
        return False
    return True


class TestVerify:
    @pytest.mark.parametrize(
        ("signing", "known"),
        [
            ([SECRET], [SECRET]),
            (["whsec_old"], [SECRET, "whsec_old"]),
            ([SECRET, "whsec_new"], ["whsec_new"]),
        ],
    )
    def test_accepts_any_of_the_secrets(self, signing: list[str], known: list[str]) -> None:
        assert accepts(BODY, sign(BODY, signing, NOW), known)

    @pytest.mark.parametrize(
        "header",
        [
            None,
            "",
            "nonsense",
            "t=,v1=",
            "t=now,v1=00",
            f"t={int(NOW)}",
            f"v1={'0' * 64}",
            sign(BODY, "whsec_forged", NOW),
            sign(BODY + b" ", SECRET, NOW),
            sign(BODY, SECRET, NOW).replace("v1", "v0"),
            f"t={int(NOW)},v1=é",
            f"t={int(NOW)},v1=\ud800",
        ],
    )
    def test_refuses_what_stripe_did_not_sign(self, header: str | None) -> None:
        assert not accepts(BODY, header, [SECRET])

    def test_accepts_signature_for_300_seconds(self) -> None:
        header = sign(BODY, SECRET, NOW)
        assert TOLERANCE_SECONDS == 300
        assert accepts(BODY, header, [SECRET], NOW + 300)
        assert not accepts(BODY, header, [SECRET], NOW + 301)

    def test_refuses_body_that_is_not_utf_8(self) -> None:
        body = b"\xff\xfe"
        assert not accepts(body, sign(body, SECRET, NOW), [SECRET])

    def test_agrees_with_stripes_library(self) -> None:
        chance = random.Random(11)
        now = time.time()  # the library reads the clock itself
        verdicts = set()
        for _ in range(4000):
            age = chance.choice([0, 0, 0, 10_000, -10_000])
            secrets = [SECRET] if chance.random() < 0.7 else ["whsec_other", SECRET]
            header = mangled(sign(BODY, secrets, now - age), chance)
            body = BODY if chance.random() < 0.9 else BODY[:-1]
            try:
                stripe.WebhookSignature.verify_header(body, header, SECRET, TOLERANCE_SECONDS)
                expected = True
            except (stripe.SignatureVerificationError, TypeError):
                expected = False  # a TypeError is how it refuses what is not ASCII
            assert accepts(body, header, [SECRET], now) is expected, header
            verdicts.add(expected)
        assert verdicts == {True, False}


def mangled(header: str, chance: random.Random) -> str:
    """The header with a few characters changed, moved, doubled or lost."""
    characters = list(header)
    for _ in range(chance.randint(0, 3)):
        position = chance.randrange(len(characters))
        match chance.randrange(4):
            case 0:
                characters[position] = chance.choice("0123456789abcdef=,tv1 +_-é")
            case 1:
                characters.insert(position, chance.choice("0123456789abcdef=,tv1 +_-"))
            case 2 if len(characters) > 1:
                del characters[position]
            case 3:
                other = chance.randrange(len(characters))
                characters[position], characters[other] = characters[other], characters[position]
    return "".join(characters)
