"""Filters of moments: a small part of SQL's WHERE, as text -> conditions -> a mask or SQL.

`label = 'dog' AND seconds >= 3`, `tag IN ('Dog', 'Bark')`, `NOT mark = 'silent'`,
`source LIKE '%.mp4'`, `label IS NULL`. A comparison with a missing label is neither true nor false,
as in SQL, so `label != 'dog'` finds no moment without a label. A moment has several tags and marks:
`tag = 'Dog'` is true if one of them is.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

from looklisten.errors import OptionError
from looklisten.names import printable

Column = Literal["source", "video_id", "seconds", "label", "tag", "mark"]
Operator = Literal["=", "<", "<=", ">", ">="]
Value = str | float

FILTER_COLUMNS: dict[str, Column] = {
    "source": "source",
    "video_id": "video_id",
    "seconds": "seconds",
    "label": "label",
    "tag": "tag",
    "tags": "tag",
    "mark": "mark",
    "marks": "mark",
}
"""The names that a filter may use, each with the column that it means."""
LIST_COLUMNS = ("tag", "mark")
"""Columns with any number of values in a row."""
MAX_DEPTH = 20
"""NOT and parentheses within each other; DataFusion refuses some more."""
MAX_CONDITIONS = 200
"""Joined by AND and OR; more would exceed Python's stack."""


@dataclass(frozen=True)
class Comparison:
    """A column and a value; of a column of lists, whether one of its values is this one."""

    column: Column
    operator: Operator
    value: Value


@dataclass(frozen=True)
class OneOf:
    """`column IN (values)`."""

    column: Column
    values: tuple[Value, ...]


@dataclass(frozen=True)
class Like:
    r"""`column LIKE pattern`: `%` means any letters, `_` one letter, `\%` and `\_` themselves."""

    column: Column
    pattern: str


@dataclass(frozen=True)
class IsNull:
    """`column IS NULL`; of a column of lists, whether the list is empty."""

    column: Column


@dataclass(frozen=True)
class Not:
    condition: "Condition"


@dataclass(frozen=True)
class Both:
    """`left AND right`."""

    left: "Condition"
    right: "Condition"


@dataclass(frozen=True)
class Either:
    """`left OR right`."""

    left: "Condition"
    right: "Condition"


Condition = Comparison | OneOf | Like | IsNull | Not | Both | Either

_TOKEN = re.compile(
    r"""\s*(?:
    (?P<text>'(?:[^']|'')*')
    | (?P<number>[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?)
    | (?P<word>[A-Za-z_][A-Za-z_0-9]*)
    | (?P<sign><=|>=|<>|!=|=|<|>|\(|\)|,)
    )""",
    re.VERBOSE,
)
_KEYWORDS = frozenset(["AND", "OR", "NOT", "IN", "IS", "NULL", "LIKE", "BETWEEN"])


@dataclass(frozen=True)
class _Token:
    kind: str
    """`text`, `number`, `word`, `sign` or `end`."""
    spelling: str
    at: int

    def is_keyword(self, keyword: str) -> bool:
        return self.kind == "word" and self.spelling.upper() == keyword

    def is_sign(self, sign: str) -> bool:
        return self.kind == "sign" and self.spelling == sign


def parse_filter(text: str) -> Condition:
    """The condition of a filter. Raises OptionError with the place where reading ended."""
    return _Parser(text).parse()


class _Parser:
    """Reads one filter from left to right; OR binds weaker than AND, AND weaker than NOT."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._depth = 0
        self._conditions = 0
        self._tokens = self._split(text)
        self._next = 0

    def parse(self) -> Condition:
        condition = self._either()
        if self._peek().kind != "end":
            raise self._error("AND or OR or the end", self._peek())
        return condition

    def _split(self, text: str) -> list[_Token]:
        tokens: list[_Token] = []
        at = 0
        while text[at:].strip():
            match = _TOKEN.match(text, at)
            if match is None:
                start = at + len(text[at:]) - len(text[at:].lstrip())
                raise self._error("a column, a value or an operator", _Token("end", "", start))
            kind = match.lastgroup or ""
            tokens.append(_Token(kind, match[kind], match.start(kind)))
            at = match.end()
        tokens.append(_Token("end", "", len(text)))
        return tokens

    def _error(self, expected: str, token: _Token) -> OptionError:
        unread = self._text[token.at :]
        position = f"before {printable(unread)!r}" if unread else "at its end"
        # Double quotes around texts are the usual mistake.
        hint = "; texts stand in single quotes, as in label = 'dog'" if '"' in unread else ""
        return OptionError(
            f"where {printable(self._text)!r} cannot be read: expected {expected} {position}{hint}",
            "where",
        )

    def _peek(self) -> _Token:
        return self._tokens[self._next]

    def _take(self) -> _Token:
        token = self._tokens[self._next]
        # The end is never taken, so a look ahead always finds a token.
        if token.kind != "end":
            self._next += 1
        return token

    def _take_keyword(self, keyword: str) -> bool:
        if not self._peek().is_keyword(keyword):
            return False
        self._take()
        return True

    def _take_sign(self, sign: str) -> bool:
        if not self._peek().is_sign(sign):
            return False
        self._take()
        return True

    def _expect_sign(self, sign: str) -> None:
        if not self._take_sign(sign):
            raise self._error(f"{sign!r}", self._peek())

    def _either(self) -> Condition:
        condition = self._both()
        while self._take_keyword("OR"):
            condition = Either(condition, self._both())
        return condition

    def _both(self) -> Condition:
        condition = self._negated()
        while self._take_keyword("AND"):
            condition = Both(condition, self._negated())
        return condition

    def _negated(self) -> Condition:
        self._depth += 1
        # Python's own limit of recursion would end the program without a sentence.
        if self._depth > MAX_DEPTH:
            raise self._error(f"at most {MAX_DEPTH} levels of NOT and parentheses", self._peek())
        try:
            if self._take_keyword("NOT"):
                return Not(self._negated())
            if self._take_sign("("):
                condition = self._either()
                self._expect_sign(")")
                return condition
            return self._predicate()
        finally:
            self._depth -= 1

    def _predicate(self) -> Condition:
        self._conditions += 1
        if self._conditions > MAX_CONDITIONS:
            expected = f"at most {MAX_CONDITIONS} conditions (IN takes any number of values)"
            raise self._error(expected, self._peek())
        column = self._column()
        if self._take_keyword("IS"):
            is_negated = self._take_keyword("NOT")
            if not self._take_keyword("NULL"):
                raise self._error("NULL", self._peek())
            return _negate(IsNull(column), is_negated)
        is_negated = self._take_keyword("NOT")
        if self._take_keyword("IN"):
            return _negate(OneOf(column, self._values(column)), is_negated)
        if self._take_keyword("LIKE"):
            return _negate(self._like(column), is_negated)
        if self._take_keyword("BETWEEN"):
            return _negate(self._between(column), is_negated)
        # SQL has no NOT before a comparison sign.
        if is_negated:
            raise self._error("IN, LIKE or BETWEEN", self._peek())
        return self._comparison(column)

    def _column(self) -> Column:
        token = self._take()
        name = token.spelling
        if token.kind != "word" or name.upper() in _KEYWORDS or name.lower() not in FILTER_COLUMNS:
            names = "source, video_id, seconds, label, tag or mark"
            raise self._error(f"a column ({names})", token)
        return FILTER_COLUMNS[name.lower()]

    def _comparison(self, column: Column) -> Condition:
        token = self._take()
        operators: dict[str, Operator] = {sign: sign for sign in ("=", "<", "<=", ">", ">=")}
        if token.kind == "sign" and token.spelling in ("!=", "<>"):
            return Not(Comparison(column, "=", self._value(column)))
        if token.kind != "sign" or token.spelling not in operators:
            raise self._error("=, !=, <, <=, >, >=, IN, LIKE, BETWEEN or IS NULL", token)
        if column in LIST_COLUMNS and token.spelling != "=":
            raise self._error(f"=, !=, IN, LIKE or IS NULL after {column}", token)
        return Comparison(column, operators[token.spelling], self._value(column))

    def _between(self, column: Column) -> Condition:
        if column in LIST_COLUMNS:
            raise self._error(f"=, !=, IN, LIKE or IS NULL after {column}", self._peek())
        lowest = self._value(column)
        if not self._take_keyword("AND"):
            raise self._error("AND", self._peek())
        highest = self._value(column)
        return Both(Comparison(column, ">=", lowest), Comparison(column, "<=", highest))

    def _like(self, column: Column) -> Condition:
        if column == "seconds":
            raise self._error("a comparison with a number after seconds", self._peek())
        pattern = self._value(column)
        assert isinstance(pattern, str)
        return Like(column, pattern)

    def _values(self, column: Column) -> tuple[Value, ...]:
        self._expect_sign("(")
        values = [self._value(column)]
        while self._take_sign(","):
            values.append(self._value(column))
        self._expect_sign(")")
        return tuple(values)

    def _value(self, column: Column) -> Value:
        token = self._take()
        if column == "seconds":
            if token.kind != "number":
                raise self._error("a number of seconds", token)
            return float(token.spelling)
        if token.is_keyword("NULL"):
            raise self._error("a text in single quotes (or use IS NULL)", token)
        if token.kind != "text":
            raise self._error("a text in single quotes", token)
        return token.spelling[1:-1].replace("''", "'")


def _negate(condition: Condition, is_negated: bool) -> Condition:
    return Not(condition) if is_negated else condition


SQL_NAMES: dict[Column, str] = {"tag": "tag_names", "mark": "marks"}
"""The columns of a table whose names are not those of a filter."""


def filter_sql(condition: Condition, values_of: Callable[[Column], Sequence[str]]) -> str:
    """A condition as DataFusion's SQL.

    `values_of` gives all values of a column of lists, among which LIKE chooses.
    """

    def sql(part: Condition) -> str:
        match part:
            case Not(inner):
                return f"(NOT {sql(inner)})"
            case Both():
                return f"({' AND '.join(map(sql, _operands(part, Both)))})"
            case Either():
                return f"({' OR '.join(map(sql, _operands(part, Either)))})"
            case IsNull(column) if column in LIST_COLUMNS:
                return f"(array_length({SQL_NAMES[column]}) = 0)"
            case IsNull(column):
                return f"({column} IS NULL)"
            case Comparison(column, _, value) if column in LIST_COLUMNS:
                return _any_of(column, (value,))
            case Comparison(column, operator, value):
                return f"({column} {operator} {_literal(value)})"
            case OneOf(column, values) if column in LIST_COLUMNS:
                return _any_of(column, values)
            case OneOf(column, values):
                return f"({column} IN ({', '.join(map(_literal, values))}))"
            case Like(column, pattern) if column in LIST_COLUMNS:
                # LanceDB compares the names in a list for equality only.
                matches = like_pattern(pattern)
                return _any_of(column, [name for name in values_of(column) if matches(name)])
            case Like(column, pattern):
                return f"({column} LIKE {_literal(pattern)})"

    return sql(condition)


def _operands(condition: Condition, kind: type[Both] | type[Either]) -> list[Condition]:
    """What a chain of AND or of OR joins; DataFusion refuses many nested parentheses."""
    operands: list[Condition] = []
    while isinstance(condition, kind):
        operands.append(condition.right)
        condition = condition.left
    return [condition, *reversed(operands)]


def _any_of(column: Column, values: Sequence[Value]) -> str:
    name = SQL_NAMES[column]
    tests = [f"array_has({name}, {_literal(value)})" for value in values]
    # Parentheses without a condition between them are no SQL.
    return f"({' OR '.join(tests)})" if tests else "FALSE"


def _literal(value: Value) -> str:
    return text_literal(value) if isinstance(value, str) else repr(value)


def text_literal(text: str) -> str:
    """A text as SQL writes it."""
    return "'" + text.replace("'", "''") + "'"


def like_pattern(pattern: str) -> Callable[[str], bool]:
    """Whether a whole text matches a pattern of LIKE."""
    parts = []
    letters = iter(pattern)
    for letter in letters:
        if letter == "%":
            parts.append(".*")
        elif letter == "_":
            parts.append(".")
        elif letter == "\\":
            parts.append(re.escape(next(letters, "\\")))
        else:
            parts.append(re.escape(letter))
    # A path may contain a line break, which a dot does not match otherwise.
    compiled = re.compile("".join(parts), re.DOTALL)
    return lambda text: compiled.fullmatch(text) is not None
