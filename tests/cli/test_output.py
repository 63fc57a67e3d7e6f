"""What commands print: on a terminal, in a pipe, as JSON."""

from __future__ import annotations

import io
import json
from typing import Any

import pytest
from rich.console import Console

from stripe_integrations_cli.output import Output

EVENT = {
    "event": "evt_h5iKehfFFmwsjju5N2qBSUtn",
    "type": "customer.subscription.pending_update_applied",
    "customer": "cus_wjcC8r2U2AukAf",
    "user": "user-7",
    "reason": "older than the state that was fetched",
}


def printing(*, as_json: bool = False, width: int | None = None) -> tuple[Output, io.StringIO]:
    """An output, and what it prints; with a width, on a terminal."""
    printed = io.StringIO()
    output = Output(as_json=as_json)
    output.console = Console(
        file=printed, width=width, force_terminal=width is not None, color_system=None
    )
    return output, printed


class TestTerminal:
    @pytest.mark.parametrize("width", [40, 80, 300])
    def test_ids_are_never_cut(self, width: int) -> None:
        output, printed = printing(width=width)
        output.rows(tuple(EVENT), [EVENT])
        for name in ("event", "type", "customer"):
            assert EVENT[name] in printed.getvalue()

    @pytest.mark.parametrize("width", [40, 80, 300])
    def test_addresses_are_never_cut(self, width: int) -> None:
        output, printed = printing(width=width)
        address = f"http://127.0.0.1:45678/{'a' * 8}/?token={'b' * 43}"
        output.fields({"console": address, "reason": EVENT["reason"]})
        assert address in printed.getvalue()

    def test_long_list_is_printed_before_its_end_is_read(self) -> None:
        output, printed = printing(width=80)
        known_before = []

        def rows() -> Any:
            for number in range(501):
                known_before.append("row-0 " in printed.getvalue())
                yield {"name": f"row-{number} "}

        output.rows(("name",), rows())
        assert known_before[0] is False
        assert known_before[500] is True
        assert "row-500" in printed.getvalue()


class TestPipe:
    def test_lines_are_printed_one_by_one(self) -> None:
        output, printed = printing()
        rows: list[dict[str, Any]] = [{"a": 1, "b": "x\ty\n"}, {"a": None, "b": True}]
        output.rows(("a", "b"), iter(rows))
        assert printed.getvalue() == "1\tx y \n\tyes\n"

    def test_json_has_no_character_that_acts_on_a_terminal(self) -> None:
        output, printed = printing(as_json=True)
        name = "\x1b\x9b\u202eJ\u00e9r\u00f4me"
        output.rows(("name",), [{"name": name}])
        assert printed.getvalue().isascii()
        assert printed.getvalue().removesuffix("\n").isprintable()
        assert json.loads(printed.getvalue()) == {"name": name}
