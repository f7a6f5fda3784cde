"""What is said of an attempt to connect that failed: what happened, to whom, what to do."""

from __future__ import annotations

import ssl
from collections.abc import Sequence
from http.client import responses
from typing import Final

import msgspec

from symphony.client.address import Address
from symphony.client.backoff import answer_comes_back, comes_back
from symphony.client.link import Close, DialError
from symphony.client.opening import Answer
from symphony.client.payload import ErrorData

__all__ = ("close", "http", "no_http", "no_websocket", "tls", "unknown_host", "unreachable")

_LOST: Final = 1006
_NOT_ALLOWED: Final = 1002
_TLS: Final = 1015
_SHOWN: Final = 200


def http(answer: Answer, wait: float | None) -> DialError:
    """Return the error of an HTTP answer that is no 101."""
    status = answer.status
    line = f"HTTP {status} {answer.phrase or responses.get(status, '')}".rstrip()
    told = _told(answer.body)
    if told is not None:
        reason = told.message or told.code
        message = f"{told.code}: {told.message} ({line})" if told.message else f"{told.code} ({line})"
    else:
        reason = line
        message = line + _hint(status, answer) + _page(answer)
    return DialError(4000 + status, message, reason=reason, again=answer_comes_back(status), retry_after=wait)


def close(how: Close) -> DialError:
    """Return the error of a server that refused by a close code."""
    message = f"{how.reason} ({how.code})" if how.reason else f"close code {how.code}"
    return DialError(how.code, message, reason=how.reason, again=comes_back(how.code))


def no_websocket(problem: str) -> DialError:
    """Return the error of a 101 that is none."""
    message = f"{problem}; is that a WebSocket server, and nothing between that rewrites its answers?"
    return DialError(_NOT_ALLOWED, message, reason=problem, again=False)


def no_http(problem: Exception, address: Address) -> DialError:
    """Return the error of a connection on which no HTTP answer came."""
    hint = "" if address.secure else " If it expects TLS, write wss://."
    if isinstance(problem, EOFError):
        said = f"it closed the connection instead of answering the handshake.{hint}"
    elif isinstance(problem, OSError):
        said = f"the connection broke before the handshake was answered ({_words(problem)}).{hint}"
    else:
        said = f"{problem}; is that the port of a WebSocket server?{hint}"
        return DialError(_NOT_ALLOWED, said, reason=str(problem), again=False)
    return DialError(_LOST, said, again=True)


def unknown_host(problem: OSError | UnicodeError, address: Address) -> DialError:
    """Return the error of a host name that cannot be resolved."""
    message = (
        f"the host {address.host!r} is not known ({_words(problem)}). "
        "Is it spelled right, and is this machine online?"
    )
    return DialError(_LOST, message, again=True)


def unreachable(problems: Sequence[OSError], address: Address) -> DialError:
    """Return the error of addresses none of which took the connection."""
    host = f"[{address.host}]" if ":" in address.host else address.host
    place = f"{host}:{address.port}"
    if all(isinstance(problem, ConnectionRefusedError) for problem in problems):
        message = f"nothing listens at {place} (connection refused). Does the server run, on that port?"
    elif address.secure and isinstance(problems[-1], ConnectionError):
        message = f"{place} ended the connection in the TLS handshake. If it has no certificate, write ws://."
    elif isinstance(problems[-1], TimeoutError):
        message = f"{place} does not answer. Is the host right, and does no firewall stand between?"
    else:
        said = "; ".join(dict.fromkeys(map(_words, problems)))
        message = f"no connection to {place}: {said}."
    return DialError(_LOST, message, again=True)


def tls(problem: ssl.SSLError, address: Address) -> DialError:
    """Return the error of a TLS handshake that failed."""
    if isinstance(problem, ssl.SSLCertVerificationError):
        message = (
            f"the certificate of {address.host} is not accepted: {problem.verify_message}. "
            "Trust its issuer with ssl=ssl.create_default_context(cafile=...)."
        )
    else:
        message = (
            f"the TLS handshake with {address.host}:{address.port} failed "
            f"({problem.reason or problem.strerror or problem}). If the server has no certificate, write ws://."
        )
    return DialError(_TLS, message, reason="TLS failed", again=False)


def _told(body: bytes) -> ErrorData | None:
    try:
        return msgspec.json.decode(body, type=ErrorData)
    except (msgspec.MsgspecError, UnicodeError, RecursionError):
        return None


def _hint(status: int, answer: Answer) -> str:
    if 300 <= status < 400 and (location := answer.headers.get("location")):
        return f", a redirect: connect to {location} instead"
    if status == 404:
        return ": the server has no such path"
    if status in (200, 400, 405, 426):
        return ": is there a WebSocket at this path?"
    return ""


def _page(answer: Answer) -> str:
    """Return what a short plain text answer says."""
    if "html" in answer.headers.get("content-type", "html"):
        return ""
    text = answer.body.decode("utf-8", "replace").strip()
    if not text or not text.isprintable():
        return ""
    return f" It says: {text if len(text) <= _SHOWN else text[:_SHOWN] + '…'}"


def _words(problem: Exception) -> str:
    said = problem.strerror if isinstance(problem, OSError) else None
    return said or str(problem) or type(problem).__name__
