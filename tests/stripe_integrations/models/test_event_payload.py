"""The payload of an event, as it is stored."""

from __future__ import annotations

import json
import zlib

import pytest

from stripe_integrations.models.event_payload import CompressedJson

PAYLOAD = {"id": "evt_1", "object": "event", "data": {"object": {"id": "cus_1", "name": "Zoë"}}}
STORED = "78bb443d6518436af41a626bf5e2e93c82d4439bfe51f931a50606a949407fd6020023eb19d1"


class TestCompressedJson:
    def test_reads_what_an_earlier_release_has_stored(self) -> None:
        """The dictionary never changes: a stored payload can be read with its own one alone."""
        assert CompressedJson().deserialize(bytes.fromhex(STORED)) == PAYLOAD

    def test_reads_what_was_compressed_without_a_dictionary(self) -> None:
        assert CompressedJson().deserialize(zlib.compress(json.dumps(PAYLOAD).encode())) == PAYLOAD

    @pytest.mark.parametrize("value", [{}, {"a": "x" * 100_000}, {"a": [None, {"b": 1.5}]}])
    def test_reads_what_it_has_stored(self, value: dict[str, object]) -> None:
        assert CompressedJson().deserialize(CompressedJson().serialize(value)) == value
