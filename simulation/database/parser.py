"""Reads expressions: conditions, updates and projections.

Follows https://docs.aws.amazon.com/amazondynamodb/latest/developerguide/Expressions.html
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Generic, TypeVar

from simulation.database.conditions import (
    BeginsWith,
    Between,
    Both,
    Comparison,
    Condition,
    Contains,
    Either,
    Exists,
    Literal,
    Negation,
    OfType,
    OneOf,
    Operand,
    Path,
    Size,
)
from simulation.database.errors import RefusedError, invalid
from simulation.database.updates import Arithmetic, IfNotExists, ListAppend, Source, Update

T = TypeVar("T")

_TOKEN = re.compile(
    r"\s*(?:(?P<name>[#:]?[A-Za-z0-9_]+)|(?P<sign><>|<=|>=|[-=<>()\[\].,+])|(?P<end>$)|(?P<odd>.))"
)
_IDENTIFIER = re.compile(r"#[A-Za-z0-9_]+|[A-Za-z][A-Za-z0-9_]*")
_COMPARATORS = {"=", "<>", "<", "<=", ">", ">="}
_WORDS = {"AND", "OR", "NOT", "BETWEEN", "IN", "SET", "REMOVE", "ADD", "DELETE"}
_MOST_CHOICES = 100
_LONGEST_BYTES = 4096


@dataclass(frozen=True, slots=True)
class Parsed(Generic[T]):
    """A parsed expression and the placeholders that it uses."""

    tree: T
    names: frozenset[str]
    values: frozenset[str]


class _Parser:
    def __init__(self, text: str, what: str) -> None:
        self.what = what
        self.names: set[str] = set()
        self.values: set[str] = set()
        self._position = 0
        self._closed: dict[int, int] = {}
        """Where the parentheses that were read end, by where they begin."""
        if not text.strip():
            raise self.error("The expression can not be empty")
        if len(text.encode()) > _LONGEST_BYTES:
            raise self.error("Expression size has exceeded the maximum allowed size")
        self._tokens = list(self._split(text))

    def _split(self, text: str) -> list[str]:
        tokens: list[str] = []
        position = 0
        while True:
            found = _TOKEN.match(text, position)
            if found is None or found.lastgroup == "odd":
                raise self.error("Syntax error; unknown character")
            if found.lastgroup == "end":
                return [*tokens, ""]
            tokens.append(found[found.lastgroup or 0])
            position = found.end()

    # ---- tokens

    def error(self, why: str) -> RefusedError:
        return invalid(f"Invalid {self.what}: {why}")

    def peek(self) -> str:
        return self._tokens[self._position]

    def take(self) -> str:
        token = self._tokens[self._position]
        if token:
            self._position += 1
        return token

    def accept(self, *tokens: str) -> bool:
        if self.peek().upper() in tokens:
            self._position += 1
            return True
        return False

    def expect(self, token: str) -> None:
        if not self.accept(token):
            raise self.error(f'Syntax error; token: "{self.peek() or "<EOF>"}"')

    def listed(self, read: Callable[[], T]) -> list[T]:
        items = [read()]
        while self.accept(","):
            items.append(read())
        return items

    def is_call(self) -> bool:
        return self._tokens[self._position + 1 : self._position + 2] == ["("]

    # ---- paths and operands

    def path(self) -> Path:
        parts: list[str | int] = [self._identifier()]
        while True:
            if self.accept("."):
                parts.append(self._identifier())
            elif self.accept("["):
                position = self.take()
                if not position.isdecimal():
                    raise self.error(f'Syntax error; token: "{position}"')
                parts.append(int(position))
                self.expect("]")
            else:
                return Path(tuple(parts))

    def _identifier(self) -> str:
        token = self.take()
        if not _IDENTIFIER.fullmatch(token) or token.upper() in _WORDS:
            raise self.error(f'Syntax error; token: "{token or "<EOF>"}"')
        if token[0] == "#":
            self.names.add(token)
        return token

    def literal(self) -> Literal:
        token = self.take()
        if token[:1] != ":" or len(token) == 1:
            raise self.error(f'Syntax error; token: "{token or "<EOF>"}"')
        self.values.add(token)
        return Literal(token)

    def simple(self) -> Path | Literal:
        return self.literal() if self.peek()[:1] == ":" else self.path()

    def operand(self) -> Operand:
        if self.is_call():
            if self.take() != "size":
                raise self.error("Invalid function name, or the function is not allowed here")
            self.expect("(")
            inner = self.simple()
            self.expect(")")
            return Size(inner)
        return self.simple()

    # ---- conditions

    def condition(self) -> Condition:
        left = self._conjunction()
        while self.accept("OR"):
            left = Either(left, self._conjunction())
        return left

    def _conjunction(self) -> Condition:
        left = self._negation()
        while self.accept("AND"):
            left = Both(left, self._negation())
        return left

    def _negation(self) -> Condition:
        if self.accept("NOT"):
            return Negation(self._negation())
        if self.peek() == "(":
            return self._in_parentheses()
        if self.is_call() and self.peek() != "size":
            return self._function()
        return self._comparison()

    def _in_parentheses(self) -> Condition:
        start = self._position
        self.expect("(")
        inner = self.condition()
        if self._closed.get(start + 1) == self._position - 1:
            raise self.error("The expression has redundant parentheses")
        self._closed[start] = self._position
        self.expect(")")
        return inner

    def _comparison(self) -> Condition:
        operand = self.operand()
        if self.accept("BETWEEN"):
            low = self.operand()
            self.expect("AND")
            return Between(operand, low, self.operand())
        if self.accept("IN"):
            self.expect("(")
            choices = self.listed(self.operand)
            self.expect(")")
            if len(choices) > _MOST_CHOICES:
                raise self.error("The IN operator takes at most 100 operands")
            return OneOf(operand, tuple(choices))
        operator = self.take()
        if operator not in _COMPARATORS:
            raise self.error(f'Syntax error; token: "{operator or "<EOF>"}"')
        return Comparison(operator, operand, self.operand())

    def _function(self) -> Condition:
        name = self.take()
        self.expect("(")
        arguments = self.listed(self.operand)
        self.expect(")")
        match name, arguments:
            case "attribute_exists", [Path() as path]:
                return Exists(path, wanted=True)
            case "attribute_not_exists", [Path() as path]:
                return Exists(path, wanted=False)
            case "attribute_type", [Path() as path, Literal() as kind]:
                return OfType(path, kind)
            case "begins_with", [operand, prefix]:
                return BeginsWith(operand, prefix)
            case "contains", [operand, part]:
                return Contains(operand, part)
        raise self.error(f"Invalid function name, or operands; function: {name}")

    # ---- updates

    def update(self) -> Update:
        clauses: dict[str, list[tuple[Path, Source | Literal | None]]] = {}
        while self.peek():
            word = self.take().upper()
            if word not in ("SET", "REMOVE", "ADD", "DELETE"):
                raise self.error(f'Syntax error; token: "{word}"')
            if word in clauses:
                raise self.error(f'The "{word}" section can only be used once')
            read = {"SET": self._assignment, "REMOVE": self._removal}.get(word, self._addition)
            clauses[word] = self.listed(read)
        return Update(
            sets=tuple(clauses.get("SET", [])),  # type: ignore[arg-type]
            removes=tuple(path for path, _ in clauses.get("REMOVE", [])),
            adds=tuple(clauses.get("ADD", [])),  # type: ignore[arg-type]
            deletes=tuple(clauses.get("DELETE", [])),  # type: ignore[arg-type]
        )

    def _assignment(self) -> tuple[Path, Source | Literal | None]:
        path = self.path()
        self.expect("=")
        left = self._source()
        if self.peek() in ("+", "-"):
            return path, Arithmetic(self.take(), left, self._source())
        return path, left

    def _removal(self) -> tuple[Path, Source | Literal | None]:
        return self.path(), None

    def _addition(self) -> tuple[Path, Source | Literal | None]:
        return self.path(), self.literal()

    def _source(self) -> Source:
        if not self.is_call():
            return self.simple()
        name = self.take()
        self.expect("(")
        arguments = self.listed(self._source)
        self.expect(")")
        if any(isinstance(argument, ListAppend) for argument in arguments):
            raise self.error("The function is not allowed here; function: list_append")
        match name, arguments:
            case "if_not_exists", [Path() as path, otherwise]:
                return IfNotExists(path, otherwise)
            case "list_append", [first, second]:
                return ListAppend(first, second)
        raise self.error(f"Invalid function name, or operands; function: {name}")

    # ---- whole expressions

    def whole(self, tree: T) -> Parsed[T]:
        if self.peek():
            raise self.error(f'Syntax error; token: "{self.peek()}"')
        return Parsed(tree, frozenset(self.names), frozenset(self.values))


@lru_cache(maxsize=4096)
def parse_condition(text: str, what: str) -> Parsed[Condition]:
    """Parse a condition, a filter or a key condition.

    Parameters
    ----------
    text : str
        The expression.
    what : str
        The name of the parameter it came in, for messages.

    Raises
    ------
    RefusedError
        It is none.
    """
    parser = _Parser(text, what)
    return parser.whole(parser.condition())


@lru_cache(maxsize=4096)
def parse_update(text: str) -> Parsed[Update]:
    """Parse an update expression.

    Raises
    ------
    RefusedError
        It is none.
    """
    parser = _Parser(text, "UpdateExpression")
    return parser.whole(parser.update())


@lru_cache(maxsize=4096)
def parse_projection(text: str) -> Parsed[tuple[Path, ...]]:
    """Parse a projection expression.

    Raises
    ------
    RefusedError
        It is none.
    """
    parser = _Parser(text, "ProjectionExpression")
    return parser.whole(tuple(parser.listed(parser.path)))
