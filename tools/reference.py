"""Writes docs/api-reference.md: the public Python API, from its docstrings and declarations.

    python -m tools.reference           writes the file
    python -m tools.reference --check   fails if the file is out of date

The package is parsed, not imported.
"""

from __future__ import annotations

import argparse
import re
import sys
from pathlib import Path

from griffe import Class, Expr, ExprCall, ExprKeyword, GriffeLoader, Object, Parser
from griffe2md import ConfigDict, render_object_docs

ROOT = Path(__file__).resolve().parent.parent
REFERENCE = ROOT / "docs" / "api-reference.md"
PACKAGE = "stripe_integrations"

INTRODUCTION = """\
# API reference

The Python API, generated from its docstrings by `make docs`. `openapi.json` has the HTTP
API. Every error that is raised on purpose is a `StripeIntegrationsError`.
"""

ACTIONS = (
    "actions.stripe_customer.StripeCustomer",
    "actions.stripe_customer.User",
    "actions.customers.find.CustomerState",
    "actions.customers.find.FoundCustomer",
    "actions.stripe_event.StripeEvent",
    "actions.stripe_account.StripeAccount",
    "actions.stripe_account.Progress",
    "actions.account.walk.Step",
    "actions.account.page.Page",
    "actions.account.page.Finding",
    "actions.account.page.Result",
    "actions.account.rate_limiter.Limits",
    "models.run.PaymentMethodPolicy",
    "actions.events.stream.StreamRecord",
    "actions.events.reconcile.Reconciliation",
    "actions.events.replay.Replay",
)
RECORDS = {
    "models.customer.Customer": [
        "is_new",
        "cards",
        "subscriptions",
        "tax_ids",
        "payment_methods",
        "entitlements",
        "is_incomplete",
    ],
    "models.card.Card": ["is_default"],
    "models.subscription.Subscription": [],
    "models.tax_id.TaxId": [],
    "models.payment_method.PaymentMethod": ["is_default"],
    "models.entitlement.Entitlement": [],
    "models.event.Event": ["processed", "data_object", "payment_method_id"],
}
"""The records, and their public attributes other than fields."""
SHAPES = {
    "customer": "Customer",
    "card": "Card",
    "payment_method": "PaymentMethod",
    "subscription": "Subscription",
    "tax_id": "TaxId",
    "event": "Event",
}
KINDS = {
    "Text": "string",
    "Integer": "whole number",
    "Decimal": "number",
    "Flag": "boolean",
    "Document": "object",
    "Listing": "list",
    "Moment": "datetime, UTC",
    "Choice": "string",
    "CompressedJson": "object",
}
"""The kind of value that each field class declares, in terms of Python and JSON."""
SETTINGS = "config.Settings"

STYLE: ConfigDict = {
    "docstring_style": "numpy",
    "docstring_section_style": "table",
    "heading_level": 3,
    "inherited_members": False,
    "line_length": 88,
    "members_order": "source",
    "show_if_no_docstring": False,
    "show_object_full_path": False,
    "show_root_full_path": False,
    "show_root_members_full_path": False,
    "show_signature_annotations": True,
    "summary": False,
}


def reference() -> str:
    """Return the whole page."""
    loader = GriffeLoader(
        search_paths=[ROOT / "shared"],
        docstring_parser=Parser.numpy,
        # Griffe does not know the fields of a named tuple as parameters.
        docstring_options={"warn_unknown_params": False},
    )
    package = loader.load(PACKAGE)
    parts = [INTRODUCTION, "## Actions"]
    parts += [rendered(package[path]) for path in ACTIONS]
    parts.append("## Records")
    for path, read in RECORDS.items():
        parts += [rendered(package[path], [], show_signature=False), fields(package[path])]
        parts += [rendered(package[path][name], level=4) for name in read]
    parts.append("## Errors")
    parts += [rendered(error, []) for error in package["errors"].classes.values()]
    parts += ["## Settings", rendered(package[SETTINGS], ["from_environment"])]
    return tidied("\n\n".join(part.strip() for part in parts) + "\n")


def rendered(
    documented: Object,
    members: list[str] | None = None,
    level: int = 3,
    *,
    show_signature: bool = True,
) -> str:
    """Return the part of the page about one object, with all members or with these."""
    chosen: ConfigDict = {
        "heading_level": level,
        "separate_signature": show_signature,
        "show_signature": show_signature,
    }
    if members is not None:
        chosen["members"] = members
    page: str = render_object_docs(documented, {**STYLE, **chosen})
    return page


def fields(record: Class) -> str:
    """Return a record's table of fields: kind, where Stripe has each, whether `create` takes it."""
    declared = declarations(record)
    public = [entry for entry in declared if entry[2].get("private") != "True"]
    shapes = [s for s in SHAPES if any(s in given for _, _, given in public)]
    settable = any(is_settable(given) for _, _, given in public)
    heads = ["field", "kind", *(f"in Stripe's {SHAPES[shape]}" for shape in shapes)]
    table = [heads + ["`create` takes it"] * settable]
    table.append(["---"] * len(table[0]))
    for name, kind, given in public:
        places = [f"`{given[shape]}`" if shape in given else "" for shape in shapes]
        table.append(
            [f"`{name}`", kind, *places] + ["yes" if is_settable(given) else ""] * settable
        )
    return "\n".join(f"| {' | '.join(row)} |" for row in table)


def declarations(record: Class) -> list[tuple[str, str, dict[str, str]]]:
    """Return the fields of a record: name, kind and arguments of the declaration."""
    calls = [(name, field_call(attribute.value)) for name, attribute in record.attributes.items()]
    return [
        (name, KINDS[str(call.function)], keywords(call))
        for name, call in calls
        if call and str(call.function) in KINDS
    ]


def field_call(value: str | Expr | None) -> ExprCall | None:
    """Return the call that declares a field, which may be wrapped in `required`."""
    if not isinstance(value, ExprCall):
        return None
    if str(value.function) == "required":
        return field_call(value.arguments[0])
    return value


def keywords(call: ExprCall) -> dict[str, str]:
    """Return the keyword arguments of a call, strings without their quotes."""
    return {
        argument.name: literal(argument.value)
        for argument in call.arguments
        if isinstance(argument, ExprKeyword)
    }


def literal(value: str | Expr) -> str:
    return str(value).strip("\"'")


def is_settable(given: dict[str, str]) -> bool:
    """Return whether `create` takes a field."""
    return given.get("settable", str("param" in given)) == "True"


def tidied(page: str) -> str:
    """Return the page without HTML, and with links only to its own sections."""
    headings = set(re.findall(r"^#+ `(\w+)`$", page, re.MULTILINE))

    def link(found: re.Match[str]) -> str:
        name = found[1]
        return f"[{name}](#{name.lower()})" if name in headings else name

    page = re.sub(r"\[(\w+)\]\(#[\w.]+\)", link, page)
    page = re.sub(r"<code>([^<\[]*)</code>", r"`\1`", page)
    page = re.sub(r"</?code>", "", page)
    page = re.sub(r"<details .*>\n<summary>(\w+)</summary>", r"**\1:**", page)
    page = page.replace("</details>", "")
    page = re.sub(r"^\((.*)\) \|", r"\1 |", page, flags=re.MULTILINE)
    page = re.sub(r"(?<!`)``(?!`)", "`", page)
    return re.sub(r"\n{3,}", "\n\n", page)


def main() -> int:
    """Write the page, or check that it is up to date."""
    parser = argparse.ArgumentParser(description="Writes docs/api-reference.md.")
    parser.add_argument("--check", action="store_true", help="write nothing, fail on drift")
    written = reference()
    if not parser.parse_args().check:
        REFERENCE.write_text(written)
        return 0
    if REFERENCE.read_text() == written:
        return 0
    print("docs/api-reference.md is out of date: run `make docs`", file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main())
