"""Stages: the sources of the parameters of each kind of handler."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from typing import Any, Final, get_args, get_origin
from uuid import UUID

from symphony.errors import ConfigurationError
from symphony.protocol.annotations import bare, is_union, unalias
from symphony.routing.convert import query_reader
from symphony.routing.framework import fill_user, refuse_http, refuse_in_payload
from symphony.routing.parameters import EMPTY, Parameter

__all__ = (
    "Filler",
    "ForCall",
    "Known",
    "OfSubject",
    "Rules",
    "belongs_to_call",
    "the_data",
    "the_socket",
    "the_subject",
)

Filler = Callable[[Any, Any], Any]
"""Returns the value of a parameter, from the socket and the subject of a call."""

_CONVERTED_TYPES: Final[Mapping[str, tuple[type, ...]]] = {
    "str": (str,),
    "path": (str,),
    "int": (int, float),
    "float": (float,),
    "uuid": (UUID,),
}
# How much of two names must be the same (`difflib`): "rom" and "room" are 0.86, "data" and "date" 0.75.
_SIMILAR: Final = 0.75
_VERY_SIMILAR: Final = 0.8
_CONVERTED_BY: Final[Mapping[type, str]] = {str: "", int: ":int", float: ":float", UUID: ":uuid"}


def the_socket(socket: Any, subject: Any) -> Any:
    """Return the socket. Plans recognise this filler and pass the socket directly."""
    return socket


def the_subject(socket: Any, subject: Any) -> Any:
    """Return the subject of the call: the message, room or close.

    Plans recognise this filler and pass the subject directly. A dependency
    with scope `"socket"` cannot use it.
    """
    return subject


def the_data(socket: Any, subject: Any) -> Any:
    """Return the payload of a subject that also has parameters."""
    return subject.data


def belongs_to_call(filler: Filler) -> bool:
    """Return whether the value of a filler is valid for this call only."""
    kinds = _FromSubject | OfSubject | ForCall
    return filler is the_subject or filler is the_data or isinstance(filler, kinds)


@dataclass(frozen=True, slots=True)
class OfSubject:
    """Fills a parameter with an attribute of the subject."""

    name: str

    def __call__(self, socket: Any, subject: Any) -> Any:
        """Return the value."""
        return getattr(subject, self.name)


@dataclass(frozen=True, slots=True)
class ForCall:
    """Fills a parameter with what is only valid for the call.

    Attributes:
        read: Returns it, from the socket and the subject.
    """

    read: Filler

    def __call__(self, socket: Any, subject: Any) -> Any:
        """Return the value."""
        return self.read(socket, subject)


@dataclass(frozen=True, slots=True)
class Known:
    """The annotations that a stage fills automatically.

    Attributes:
        types: A filler for each type. `Socket[State]` is found as `Socket`.
        refused: The types that Symphony knows but this stage does not have, and
            the reason. A stage that refuses the type named `Socket` has no
            socket, and therefore no path parameters and no query string.
        check: Takes every annotation that is filled by `types`, including its
            generic arguments. Returns an error message, or `None`.
    """

    types: Mapping[type, Filler]
    refused: Mapping[type, str] = field(default_factory=dict[type, str])
    check: Callable[[Any], str | None] | None = None

    def named(self, name: str) -> type | None:
        """Return the type with that name, whether it is filled or refused."""
        return next((kind for kind in (*self.types, *self.refused) if kind.__name__ == name), None)


@dataclass(frozen=True, slots=True)
class Rules:
    """Fills parameters by the rules that handlers and dependencies share.

    Attributes:
        known: The annotations that are filled automatically.
        path_names: The parameters of the route's path and their converters.
        pattern_names: The parameters of the subject's pattern, such as a
            room's name.
    """

    known: Known
    path_names: Mapping[str, str]
    pattern_names: Mapping[str, str]

    def fill(self, parameter: Parameter, where: str) -> Filler | None:
        """Fill a parameter by its annotation or by its name in a pattern.

        Args:
            parameter: The parameter, without a `Depends` mark.
            where: The name of the parameter in errors.

        Returns:
            The filler, or `None` if neither rule applies.

        Raises:
            ConfigurationError: A rule applies, but the annotation does not
                match.
        """
        if parameter.query is not None:
            return self.read_query(parameter, where)
        kind = self._known_type(parameter)
        if kind in self.known.refused:
            raise ConfigurationError(f"{where}: {self.known.refused[kind]}")
        if kind is not None:
            problem = self.known.check(_without_none(parameter.annotation)) if self.known.check else None
            if problem:
                raise ConfigurationError(f"{where}: {problem}")
            return self.known.types[kind]
        user = fill_user(parameter.annotation, parameter.default, EMPTY)
        if user is not None:
            self.require_socket(where)
            return user
        refuse_http(parameter.annotation, where)
        if parameter.name in self.pattern_names:
            return self._fill_named(parameter, self.pattern_names, _FromSubject, where)
        if parameter.name in self.path_names:
            return self._fill_named(parameter, self.path_names, _from_socket, where)
        return None

    def read_query(self, parameter: Parameter, where: str) -> Filler:
        """Fill a parameter from the query string of the handshake."""
        self.require_socket(where)
        name = (parameter.query and parameter.query.alias) or parameter.name
        try:
            read = query_reader(name, parameter.annotation, parameter.default)
        except ConfigurationError as error:
            why = (
                ""
                if parameter.query is not None
                else f" It is read from the query string because nothing else fills it. "
                f"If that is wrong, {self.describe()}."
            )
            raise ConfigurationError(f"{where}: {error}.{why}") from None
        # Convert in each call. It costs 0.75 us (an integer, Python 3.11, 2026-11-23),
        # needs no memory per socket, and one call cannot change a list for the next.
        return lambda socket, subject: read(socket.handshake.query_params)

    def refuse_misspelled(
        self, parameter: Parameter, siblings: Collection[str], where: str, *, instead: str, likely: bool
    ) -> None:
        """Refuse a parameter whose name is nearly one of the patterns'.

        Args:
            parameter: One that no pattern fills.
            siblings: The names of all parameters of its function: what one of them takes is not meant.
            where: How to name the parameter in an error.
            instead: What to write if it is not misspelled.
            likely: Whether it would probably fail otherwise. If not, the names must be closer,
                and the annotation fit the pattern's.
        """
        names = {**self.path_names, **self.pattern_names}
        unused = [name for name in names if name not in siblings]
        cutoff = _SIMILAR if likely else _VERY_SIMILAR
        for meant in get_close_matches(parameter.name, unused, 1, cutoff):
            if likely or _fits(parameter.annotation, names[meant]):
                whose = "event or room" if meant in self.pattern_names else "path"
                raise ConfigurationError(
                    f"{where}: did you mean {meant!r}, a parameter of the {whose}? {instead}"
                )

    def unused(self, siblings: Collection[str]) -> str:
        """Name the parameters of the patterns that a function does not take, for errors."""
        names = [name for name in (*self.path_names, *self.pattern_names) if name not in siblings]
        return f"The handler does not take {' or '.join(map(repr, names))} of the pattern. " if names else ""

    def require_socket(self, where: str) -> None:
        """Raise an error if this stage has no socket."""
        if self._no_socket is not None:
            raise ConfigurationError(f"{where}: {self._no_socket}")

    def refuse_in_payload(self, parameter: Parameter, where: str) -> None:
        """Raise an error if the type of a payload is, or contains, one of the framework."""
        known = (*self.known.types, *self.known.refused)
        refuse_in_payload(parameter.annotation, known, where)

    def shown_query(self, parameter: Parameter) -> str:
        """Return how a parameter is written that is one of the query string."""
        kind = parameter.annotation
        shown = "str" if kind is EMPTY else kind.__name__ if isinstance(kind, type) else str(kind)
        return f"`{parameter.name}: Annotated[{shown}, Query()]`"

    def describe(self) -> str:
        """Return how a parameter of this stage can be filled, for errors."""
        types = ", ".join(kind.__name__ for kind in self.known.types)
        names = ", ".join([*self.path_names, *self.pattern_names])
        return (
            f"annotate it with a type known here ({types or 'none'}) or with Annotated[..., Depends(...)]"
            f"{'' if self._no_socket else ' or Annotated[..., Query()]'}, "
            f"or name it like a parameter of the pattern ({names or 'none'})"
        )

    @property
    def _no_socket(self) -> str | None:
        socket = self.known.named("Socket")
        return None if socket is None else self.known.refused.get(socket)

    def _known_type(self, parameter: Parameter) -> Any:
        if parameter.annotation is EMPTY:
            return self.known.named("Socket") if parameter.is_first and parameter.name == "socket" else None
        kind = _without_none(parameter.annotation)
        kind = get_origin(kind) or kind
        if not isinstance(kind, type):
            return None
        return kind if kind in self.known.types or kind in self.known.refused else None

    def _fill_named(
        self,
        parameter: Parameter,
        names: Mapping[str, str],
        source: Callable[[str], Filler],
        where: str,
    ) -> Filler:
        converter = names[parameter.name]
        if _fits(parameter.annotation, converter):
            return source(parameter.name)
        here = parameter.name if converter == "str" else f"{parameter.name}:{converter}"
        given = _CONVERTED_TYPES[converter][0].__name__
        wanted = _CONVERTED_BY.get(bare(parameter.annotation))
        hint = (
            f"Annotate it with {given}, or rename it if another value is meant."
            if wanted is None
            else f"Write {{{parameter.name}{wanted}}} in the pattern, or annotate it with {given}."
        )
        raise ConfigurationError(
            f"{where}: {{{here}}} in the pattern gives {given}, and its annotation is "
            f"{_shown(parameter.annotation)}. {hint}"
        )


def _without_none(annotation: Any) -> Any:
    """Return `Socket` for `Socket | None`, because an error handler may get no socket."""
    plain = bare(annotation)
    options = [option for option in get_args(plain) if option is not type(None)] if is_union(plain) else []
    return bare(options[0]) if len(options) == 1 else plain


def _from_socket(name: str) -> Filler:
    return lambda socket, subject: socket.params[name]


@dataclass(frozen=True, slots=True)
class _FromSubject:
    name: str

    def __call__(self, socket: Any, subject: Any) -> Any:
        return subject.params[self.name]


def _fits(annotation: Any, converter: str) -> bool:
    # The types of the app's own converters are not known.
    if annotation is EMPTY or converter not in _CONVERTED_TYPES:
        return True
    plain = bare(unalias(annotation))
    options = get_args(plain) if is_union(plain) else (plain,)
    return any(bare(option) in (Any, object, *_CONVERTED_TYPES[converter]) for option in options)


def _shown(annotation: Any) -> str:
    return annotation.__name__ if isinstance(annotation, type) else repr(annotation)
