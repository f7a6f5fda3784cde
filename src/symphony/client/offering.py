"""The subprotocols that a client offers, and what the server's choice says about the server."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from symphony.client.opening import check_headers
from symphony.client.options import Options, bearer
from symphony.protocol import subprotocols

__all__ = ("foreign", "offered_headers", "offered_names")


def offered_names(options: Options, token: str | None) -> Sequence[str]:
    """Return the subprotocols to offer.

    Some servers choose the first subprotocol, or the last, without knowing it
    (Node's `ws`, Bun). So the program's own come first. The next one is never
    chosen by Symphony, and the last one means a raw connection.
    """
    if options.raw:
        return options.subprotocols
    names = [*options.subprotocols, subprotocols.LIMITS, f"symphony.v1.{options.protocol}"]
    if token:
        names.append(subprotocols.token_subprotocol(token))
    return (*names, subprotocols.REFUSE, subprotocols.RAW)


def offered_headers(options: Options, token: str | None) -> Mapping[str, str]:
    """Return the headers to send. With `raw=True`, they carry the token.

    Raises:
        ValueError: The token has a character that a header cannot carry.
    """
    if not (options.raw and token):
        return options.headers
    carried = bearer(token)
    check_headers(carried)
    return {**carried, **options.headers}


def foreign(chosen: str | None) -> bool:
    """Return whether the choice proves that the server is not Symphony."""
    return chosen is not None and (
        chosen == subprotocols.LIMITS or chosen.startswith(subprotocols.TOKEN_PREFIX)
    )
