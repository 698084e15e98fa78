"""Path templates of `google.api.http`: parsing, matching order and overlap. Pure.

The grammar is that of google/api/http.proto: `/jobs/{job_id}`, `/{name=jobs/*}`, `/jobs/*:verb`.
A template is a tuple of segments; a verb is folded into the last segment, so that everything
below compares segments and nothing else.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from urllib.parse import quote

STAR, DEEP = "*", "**"

_TOKEN = re.compile(r"\{|\}|=|/|:|\*\*|\*|[^{}=/:*]+")
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*(\.[A-Za-z_][A-Za-z0-9_]*)*")


class BadTemplate(ValueError):
    """A path template that does not follow the grammar, or uses what is not supported."""


@dataclass(frozen=True, slots=True)
class Segment:
    """One part of a path between slashes: fixed text, any text, or any text before `:verb`."""

    wild: bool
    text: str = ""
    """The whole text where not wild; where wild, what the segment must end with (`:verb`)."""
    deep: bool = False
    """Whether it takes one or more segments; only the last one may."""

    @property
    def rank(self) -> int:
        """0 for the most literal."""
        return (0 if not self.wild else 1 if self.text else 2) + self.deep

    def contains(self, other: Segment) -> bool:
        """Whether every text that fits `other` fits this one."""
        if not self.wild:
            return self == other
        return other.text.endswith(self.text)

    def pattern(self) -> str:
        """A regular expression for the percent-encoded text."""
        return self.wild_pattern() + re.escape(quote(self.text, safe=":@!$&'()*+,;=~"))

    def wild_pattern(self) -> str:
        """The part of `pattern` that stands for any text; empty for none."""
        if not self.wild:
            return ""
        return r"[^/]+(?:/[^/]+)*" if self.deep else r"[^/]+"


@dataclass(frozen=True, slots=True)
class Variable:
    """A field of the request that takes the segments `start` to `end` (not included)."""

    field: str
    start: int
    end: int


@dataclass(frozen=True, slots=True)
class Template:
    """A parsed path template."""

    text: str
    segments: tuple[Segment, ...]
    variables: tuple[Variable, ...]

    @property
    def order(self) -> tuple[int, ...]:
        """Sorts templates the most literal first."""
        return tuple(segment.rank for segment in self.segments)

    @property
    def deep(self) -> bool:
        """Whether the last segment takes many."""
        return self.segments[-1].deep

    def contains(self, other: Template) -> bool:
        """Whether every path that fits `other` fits this template."""
        return self._compare(other, symmetric=False)

    def overlaps(self, other: Template) -> bool:
        """Whether some path fits both."""
        return self._compare(other, symmetric=True)

    def _compare(self, other: Template, *, symmetric: bool) -> bool:
        for mine, theirs in zip(self.segments, other.segments, strict=False):
            if mine.deep or (symmetric and theirs.deep):
                return True
            if theirs.deep:
                return False
            if not mine.contains(theirs) and not (symmetric and theirs.contains(mine)):
                return False
        return len(self.segments) == len(other.segments)

    def pattern(self) -> str:
        """A regular expression with one group for each variable, in the order of `variables`."""
        parts = [segment.pattern() for segment in self.segments]
        for variable in self.variables:
            first, last = variable.start, variable.end - 1
            parts[first] = "(" + parts[first]
            # A verb stands behind the variable, not in it.
            wild = self.segments[last].wild_pattern()
            cut = parts[last].index(wild) + len(wild) if wild else len(parts[last])
            parts[last] = parts[last][:cut] + ")" + parts[last][cut:]
        return "/" + "/".join(parts)


def parse(text: str) -> Template:
    """Parses a template.

    Raises:
        BadTemplate: it does not follow the grammar, binds a field twice, or has `**` elsewhere
            than at the end.
    """
    parser = _Parser(text)
    parser.expect("/")
    parser.segments()
    verb = parser.verb()
    if parser.tokens:
        raise BadTemplate(f"{text!r}: unexpected {parser.tokens[0]!r}")
    segments, variables = parser.found, parser.variables
    if verb:
        segments[-1] = Segment(segments[-1].wild, segments[-1].text + ":" + verb)
    if any(segment.deep for segment in segments[:-1]) or (verb and parser.ends_deep):
        raise BadTemplate(f"{text!r}: `**` must be the last segment, without a verb")
    names = [variable.field for variable in variables]
    if len(set(names)) != len(names):
        raise BadTemplate(f"{text!r}: a field is bound twice")
    return Template(text, tuple(segments), tuple(variables))


class _Parser:
    """One pass over the tokens of a template."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.tokens: list[str] = _TOKEN.findall(text)
        self.found: list[Segment] = []
        self.variables: list[Variable] = []
        self.ends_deep = False

    def peek(self) -> str:
        return self.tokens[0] if self.tokens else ""

    def take(self) -> str:
        if not self.tokens:
            raise BadTemplate(f"{self.text!r}: ends too early")
        return self.tokens.pop(0)

    def expect(self, token: str) -> None:
        if self.take() != token:
            raise BadTemplate(f"{self.text!r}: {token!r} expected")

    def segments(self, *, inside: bool = False) -> None:
        self.segment(inside=inside)
        while self.peek() == "/":
            self.take()
            self.segment(inside=inside)

    def segment(self, *, inside: bool) -> None:
        token = self.take()
        self.ends_deep = token == DEEP
        if token == "{" and not inside:
            self.variable()
        elif token in (STAR, DEEP):
            self.found.append(Segment(True, deep=token == DEEP))
        elif token in "{}=/:":
            raise BadTemplate(f"{self.text!r}: a segment expected, not {token!r}")
        else:
            self.found.append(Segment(False, token))

    def variable(self) -> None:
        name = self.take()
        if not _NAME.fullmatch(name):
            raise BadTemplate(f"{self.text!r}: {name!r} is not a field")
        start = len(self.found)
        if self.peek() == "=":
            self.take()
            self.segments(inside=True)
        else:
            self.found.append(Segment(True))
        self.expect("}")
        self.variables.append(Variable(name, start, len(self.found)))

    def verb(self) -> str:
        if self.peek() != ":":
            return ""
        self.take()
        name = self.take()
        if name in ("{", "}", "=", "/", ":", STAR, DEEP):
            raise BadTemplate(f"{self.text!r}: a verb expected after ':'")
        return name
