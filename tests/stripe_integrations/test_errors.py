"""The tree of errors."""

from __future__ import annotations

from stripe_integrations import errors

DRAWN = errors.__doc__ or ""


def branches(kind: type[Exception]) -> list[str]:
    """The lines of the drawing below an error; siblings in the order that the drawing has."""
    lines = []
    subclasses = sorted(kind.__subclasses__(), key=lambda each: DRAWN.find(f" {each.__name__}\n"))
    for subclass in subclasses:
        is_last = subclass is subclasses[-1]
        lines.append(f"{'└' if is_last else '├'}── {subclass.__name__}")
        lines += [("    " if is_last else "│   ") + line for line in branches(subclass)]
    return lines


def test_docstring_draws_class_tree() -> None:
    lines = ["StripeIntegrationsError", *branches(errors.StripeIntegrationsError)]
    assert "::\n\n" + "".join(f"    {line}\n" for line in lines) + "\n" in DRAWN
