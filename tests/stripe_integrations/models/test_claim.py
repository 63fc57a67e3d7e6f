"""The claim by which one caller creates a user's customer."""

from __future__ import annotations

import pytest

from stripe_integrations.models import CustomerClaim
from tests.world import World


class TestAcquire:
    def test_returns_stored_claim(self, world: World) -> None:
        first, is_first_new = CustomerClaim.acquire("u-1", {"a": 1})
        stored, is_second_new = CustomerClaim.acquire("u-1", {"a": 2})
        assert (is_first_new, is_second_new) == (True, False)
        assert (stored.token, stored.parameters) == (first.token, {"a": 1})

    def test_repeats_when_stored_claim_is_gone(self, world: World) -> None:
        with world.canceling_transactions("ConditionalCheckFailed", times=1):
            _, is_new = CustomerClaim.acquire("u-1", {})
        assert is_new


def test_renewal_and_release_require_current_token(world: World) -> None:
    claim, _ = CustomerClaim.acquire("u-1", {})
    renewed = claim.renew_token()
    assert renewed
    assert renewed.tokens == [claim.token, renewed.token]
    assert claim.renew_token() is None
    claim.release()
    stored = CustomerClaim.read("u-1")
    assert stored
    assert stored.token == renewed.token
    renewed.release()
    assert CustomerClaim.read("u-1") is None


class TestToken:
    def test_says_when_it_was_made(self, world: World) -> None:
        world.configure(deployment_name="shop-1-prod")
        world.time += 7.9
        claim, _ = CustomerClaim.acquire("u-1", {})
        assert CustomerClaim.second_of(claim.token) == int(world.time)
        world.time += 60
        renewed = claim.renew_token()
        assert renewed
        assert CustomerClaim.second_of(renewed.token) == int(world.time)

    @pytest.mark.parametrize(
        "token",
        [
            "shop/9999999999-a",
            f"shop/{'9' * 400}-a",
            None,
            7,
            "",
            "/",
            "12",
            "12-a",
            "/12-a",
            "shop/",
            "shop/a-12",
            "shop/-12",
            "shop/²",
        ],
    )
    def test_of_others_says_nothing(self, world: World, token: object) -> None:
        assert CustomerClaim.second_of(token) == 0
