"""The route table: which method serves which verb and path. Built once, from the catalog.

Routing works on the percent-encoded path: `%2F` inside a segment is part of an identifier, never a
slash. The most literal template wins, whatever the verb: it owns the path, and a verb that it lacks is
not looked for further. A table in which two templates claim one path without one of them being the
more literal is refused at start.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from urllib.parse import unquote

from gateway.catalog import BadCatalog, Catalog, HttpBinding, Method
from gateway.http_rule import Template, parse


@dataclass(frozen=True, slots=True, eq=False)
class Route:
    """One verb and path template of one method."""

    method: Method
    binding: HttpBinding
    template: Template


@dataclass(frozen=True, slots=True)
class Match:
    """A route that was found, and the decoded text of its path variables by field."""

    route: Route
    variables: dict[str, str]


class RouteTable:
    """Finds the route of a request."""

    def __init__(self, routes: Iterable[Route]) -> None:
        """Builds the table.

        Raises:
            BadCatalog: two routes claim one path.
        """
        self.routes = tuple(sorted(routes, key=lambda route: route.template.order))
        by_verb: dict[str, list[Route]] = {}
        for route in self.routes:
            by_verb.setdefault(route.binding.verb, []).append(route)
        for rivals in by_verb.values():
            _refuse_ambiguity(rivals)
        templates = {route.template.text: route.template for route in self.routes}
        self._by_verb: Mapping[str, _Verb] = {
            verb: _Verb(routes, templates.values()) for verb, routes in sorted(by_verb.items())
        }

    def find(self, verb: str, path: str) -> Match | None:
        """Finds the route of a percent-encoded path relative to the mount, if there is one."""
        table = self._by_verb.get(verb)
        return table.find(path) if table else None

    def allowed(self, path: str) -> tuple[str, ...]:
        """The verbs that some route takes for this path."""
        return tuple(verb for verb, table in self._by_verb.items() if table.find(path))


def build(catalog: Catalog) -> RouteTable:
    """Makes the table of all methods that are bound to HTTP.

    Raises:
        BadCatalog: a template is bad, names an unknown field, or two claim one path.
    """
    routes = []
    for method in catalog.methods:
        for binding in method.bindings:
            if method.internal:
                raise BadCatalog(f"{method.rpc_path}: an internal method cannot be bound to HTTP")
            try:
                template = parse(binding.path)
            except ValueError as error:
                raise BadCatalog(f"{method.rpc_path}: {error}") from error
            routes.append(Route(method, binding, template))
    return RouteTable(routes)


class _Verb:
    """The routes of one verb as one regular expression; the named group that closes a branch
    tells which route it was. A template that others own, and that lies within one of this verb, is
    a branch that leads nowhere."""

    def __init__(self, routes: list[Route], templates: Iterable[Template]) -> None:
        own = {route.template.text: route for route in routes}
        branches, group = [], 1
        self._routes: dict[str, tuple[Route, tuple[tuple[str, int], ...]]] = {}
        for index, template in enumerate(sorted(templates, key=lambda each: each.order)):
            route = own.get(template.text)
            if route is None and not _shadows(template, routes):
                continue
            fields = [variable.field for variable in template.variables]
            mark = f"route{index}"
            if route is not None:
                places = tuple((field, group + offset) for offset, field in enumerate(fields))
                self._routes[mark] = (route, places)
            branches.append(f"{template.pattern()}(?P<{mark}>)")
            group += len(fields) + 1
        self._pattern = re.compile("|".join(f"(?:{branch})" for branch in branches))

    def find(self, path: str) -> Match | None:
        found = self._pattern.fullmatch(path)
        if not found or found.lastgroup not in self._routes:
            return None
        route, places = self._routes[found.lastgroup]
        try:
            variables = {name: unquote(found[place], errors="strict") for name, place in places}
        except UnicodeDecodeError:
            return None
        return Match(route, variables)


def _shadows(template: Template, routes: list[Route]) -> bool:
    """Whether it is narrower than one of these routes, and takes the same paths as none."""
    wider = [route.template for route in routes if route.template.contains(template)]
    return bool(wider) and not any(template.contains(each) for each in wider)


def _refuse_ambiguity(routes: list[Route]) -> None:
    for index, one in enumerate(routes):
        for other in routes[index + 1 :]:
            if not one.template.overlaps(other.template):
                continue
            narrower = other.template.contains(one.template)
            if not narrower or one.template.contains(other.template):
                raise BadCatalog(
                    f"{one.binding.verb} {one.template.text} and {other.template.text} "
                    "can match one path"
                )
