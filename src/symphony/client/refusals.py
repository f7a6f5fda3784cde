"""The errors of failed attempts to connect: what happened, where, and what to do."""

from __future__ import annotations

import ssl
from collections.abc import Sequence
from http.client import responses
from typing import Final

import msgspec

from symphony.client.address import Address, without_secrets
from symphony.client.backoff import answer_comes_back, comes_back
from symphony.client.link import Close, DialError
from symphony.client.loss import sentence
from symphony.client.opening import Answer
from symphony.client.payload import ErrorData
from symphony.errors import CODES, RemoteError
from symphony.printable import MAX_SHOWN, printable
from symphony.protocol.refusals import REFUSAL

__all__ = (
    "UNREACHED",
    "at_proxy",
    "close",
    "http",
    "no_http",
    "no_proxy",
    "no_websocket",
    "redirected_too_often",
    "slow_answer",
    "slow_connect",
    "slow_host",
    "slow_proxy",
    "slow_tls",
    "tls",
    "unknown_host",
    "unreachable",
    "verb",
)

_LOST: Final = 1006
_NOT_ALLOWED: Final = 1002
_TLS: Final = 1015
# Symphony's own sentences, which quote the server.
_OF_A_PROBLEM: Final = 2 * MAX_SHOWN

_FAILED: Final = 1011
_UNAVAILABLE: Final = 4503
_NAMES: Final = {code.close: name for name, code in reversed(tuple(CODES.items()))}
_LOG: Final = "The server's log says why."

UNREACHED: Final = "could not be reached"

_TRY_TLS: Final = "If it expects TLS, write wss://."
_TRY_PLAIN: Final = "If it has no certificate, write ws://."


def verb(code: int) -> str:
    """Return what a server did that gave a `DialError` of this code, before a colon and its message."""
    if code in (_LOST, _NOT_ALLOWED, _TLS):
        return UNREACHED
    failed = code == _FAILED or (4500 <= code < 4600 and code != _UNAVAILABLE)
    return "failed to open the connection" if failed else "refused the connection"


def http(answer: Answer, wait: float | None) -> DialError:
    """Return the error for an HTTP response other than 101."""
    status = answer.status
    line = f"HTTP {status} {printable(answer.phrase) or responses.get(status, '')}".rstrip()
    told = _told(answer.body)
    # Another server, or a proxy, may send such a body, too. It does not know whether this
    # client may come back.
    decided = REFUSAL.lower() in answer.headers
    if told is not None:
        code, words = printable(told.code), printable(told.message)
        reason = words or code
        message = sentence(f"{code}: {words} ({line})" if words else f"{code} ({line})")
        message += f" {_LOG}" if status == 500 else ""
    else:
        reason = line
        message = f"{line}.{_hint(status, answer)}{_page(answer)}"
    if wait:
        message += f" It asks clients to wait {wait:g} s."
    return DialError(
        4000 + status,
        message,
        reason=reason,
        again=told.retryable if decided and told is not None else answer_comes_back(status),
        decided=decided,
        retry_after=told.retry_after if wait is None and told is not None else wait,
        refusal=told and told.error(),
        status=status,
    )


def close(how: Close, retry_after: float | None = None, refusal: RemoteError | None = None) -> DialError:
    """Return the error for a server that refused with a close code."""
    words = printable((refusal and refusal.message) or how.reason) or _NAMES.get(how.code, "close code")
    message = f"{words} ({how.code})"
    if how.code == _FAILED:
        message = f"{message}. {_LOG}"
    if retry_after is None and refusal is not None:
        retry_after = refusal.retry_after
    return DialError(
        how.code,
        message,
        reason=how.reason,
        again=comes_back(how.code) if refusal is None else refusal.retryable,
        decided=True,
        retry_after=retry_after,
        refusal=refusal,
    )


def no_websocket(problem: str) -> DialError:
    """Return the error for an invalid 101 response."""
    words = printable(problem, _OF_A_PROBLEM)
    message = f"{words}. Is that a WebSocket server, or does a proxy rewrite its responses?"
    return DialError(_NOT_ALLOWED, message, reason=words, again=False)


def no_http(problem: Exception, address: Address) -> DialError:
    """Return the error for a connection without an HTTP response."""
    hint = "" if address.secure else f" {_TRY_TLS}"
    if isinstance(problem, EOFError | OSError):
        # A server that closes with our request unread resets the connection.
        message = f"the server ended the connection instead of answering the handshake.{hint}"
        return DialError(_LOST, message, reason="no answer", again=True)
    words = printable(problem, _OF_A_PROBLEM)
    message = f"{words}. Is that the port of a WebSocket server?{hint}"
    return DialError(_NOT_ALLOWED, message, reason=words, again=False)


def unknown_host(problem: OSError | UnicodeError, address: Address) -> DialError:
    """Return the error for a host name that cannot be resolved."""
    message = (
        f"the host {address.host!r} is not known ({_words(problem)}). "
        "Is it spelled right, and is this machine online?"
    )
    return DialError(_LOST, message, reason="unknown host", again=True)


def unreachable(problems: Sequence[OSError], address: Address) -> DialError:
    """Return the error for a host none of whose addresses accepted the connection."""
    last = problems[-1]
    if all(isinstance(problem, ConnectionRefusedError) for problem in problems):
        reason = "connection refused"
        message = f"nothing listens at {address.place} ({reason}). Is the server running there?"
    elif isinstance(last, TimeoutError):
        reason, message = "no answer", slow_connect(address)
    elif address.secure and isinstance(last, ConnectionError):
        reason = "TLS failed"
        message = f"{address.place} ended the connection in the TLS handshake. {_TRY_PLAIN}"
    else:
        reason = "; ".join(dict.fromkeys(map(_words, problems)))
        message = f"no connection to {address.place}: {reason}."
    return DialError(_LOST, message, reason=reason, again=True)


def tls(problem: ssl.SSLError, address: Address) -> DialError:
    """Return the error for a failed TLS handshake."""
    if not isinstance(problem, ssl.SSLCertVerificationError):
        # Errors that asyncio itself raises have no reason.
        words = getattr(problem, "reason", None) or _words(problem)
        # Only a server with TLS sends an alert.
        hint = "" if "ALERT" in words else f" {_TRY_PLAIN}"
        message = f"the TLS handshake with {address.place} failed ({words}).{hint}"
        return DialError(_TLS, message, reason="TLS failed", again=False)
    words = problem.verify_message.rstrip(".")
    message = f"the certificate of {address.host} is not accepted: {words}."
    if "mismatch" not in words:
        message += " Trust its issuer with ssl=ssl.create_default_context(cafile=...)."
    return DialError(_TLS, message, reason=words, again=False)


def slow_host(address: Address) -> str:
    """Return the message for a timeout of the DNS lookup."""
    return f"the name {address.host!r} could not be looked up in time. Is this machine online?"


def slow_connect(address: Address) -> str:
    """Return the message for a timeout of the TCP connection."""
    return f"{address.place} does not answer. Is the host correct, and is there no firewall in between?"


def slow_tls(address: Address) -> str:
    """Return the message for a timeout of the TLS handshake."""
    return f"{address.place} does not answer in the TLS handshake. {_TRY_PLAIN}"


def slow_proxy(proxy: str) -> str:
    """Return the message for a timeout of the tunnel through a proxy."""
    return f"the proxy {proxy} does not answer. Is that a proxy, and can it reach the server?"


def at_proxy(proxy: str, words: str) -> str:
    """Return the message for something that happened on the way to a proxy."""
    return f"the proxy {proxy}: {words}"


def no_proxy(error: DialError, proxy: str) -> DialError:
    """Return the error for a proxy that cannot be reached."""
    return DialError(error.code, at_proxy(proxy, error.message), reason=error.reason, again=error.again)


def redirected_too_often(times: int) -> DialError:
    """Return the error for a server that redirects again and again."""
    message = f"it redirected more than {times} times. Is its redirect to wss or to a path correct?"
    return DialError(_NOT_ALLOWED, message, reason="too many redirects", again=False)


def slow_answer(address: Address) -> str:
    """Return the message for a timeout of the WebSocket handshake."""
    hint = "" if address.secure else f" {_TRY_TLS}"
    return f"{address.place} does not answer the handshake. Is that a WebSocket server?{hint}"


def _told(body: bytes) -> ErrorData | None:
    try:
        return msgspec.json.decode(body, type=ErrorData)
    except (msgspec.MsgspecError, UnicodeError, RecursionError):
        return None


def _hint(status: int, answer: Answer) -> str:
    if 300 <= status < 400 and (location := answer.headers.get("location")):
        return f" That is a redirect: connect to {printable(without_secrets(location))} instead."
    if status == 404:
        return " The server has no such path."
    if status == 400 and b"HTTPS" in answer.body:
        return f" {_TRY_TLS}"
    if status in (401, 407):
        return " Does it require a token? Pass token= or headers=."
    if status == 403:
        return (
            " May this client connect? Check the token and the `Origin`, and the path if the app is mounted."
        )
    if status == 500:
        return f" {_LOG}"
    if status in (502, 504):
        return " This is a proxy that cannot reach the server. Is the server running?"
    if status in (200, 400, 405, 426):
        return " Is there a WebSocket at this path?"
    return ""


def _page(answer: Answer) -> str:
    """Return a sentence that quotes a short plain text response."""
    if "html" in answer.headers.get("content-type", "html"):
        return ""
    text = answer.body.decode("utf-8", "replace").strip()
    if not text or not text.isprintable():
        return ""
    return f" It says: {printable(text)!r}."


def _words(problem: Exception) -> str:
    said = problem.strerror if isinstance(problem, OSError) else None
    return said or str(problem) or type(problem).__name__
