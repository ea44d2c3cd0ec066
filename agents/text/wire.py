"""One request to an OpenAI-compatible server, and what becomes of it: a reply, a passing fault, or the user's mistake."""

from __future__ import annotations

import email.utils
import http.client
import json
import math
import socket
import ssl
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from typing import Any
from urllib.parse import urlsplit

from bargain_env.errors import InputError

from .chat import Reply

MAX_BODY = 1 << 20
"""Bytes of a response that are read; a longer one is nonsense."""
PASSING = (408, 409, 429)
"""Statuses below 500 that may be another at the next attempt."""
SHOWN = 200
"""Characters of a server's complaint that are repeated."""
ADVICE = {
    401: "name the environment variable that holds the key with key_env=NAME",
    403: "name the environment variable that holds the key with key_env=NAME",
    404: "check the address, which mostly ends in /v1, and the name of the model",
}


class Fault(Exception):
    """An attempt that failed and may be repeated.

    Attributes:
        reason: in few words.
        wait: seconds after which the server asked to be tried again, or None.
        reached: whether anybody answered.
    """

    def __init__(self, reason: str, wait: float | None = None, reached: bool = True) -> None:
        super().__init__(reason)
        self.reason, self.wait, self.reached = reason, wait, reached


class Wire:
    """Sends requests to one address.

    Redirects are not followed, as they would carry the key to somebody else, and this machine itself is never asked through
    a proxy.

    Args:
        url: where to post.
        timeout: seconds for one whole exchange.
        clock: seconds from anywhere, for the timeout.
        now: seconds since 1970, for ``Retry-After`` dates.
    """

    def __init__(
        self,
        url: str,
        timeout: float,
        clock: Callable[[], float] = time.monotonic,
        now: Callable[[], float] = time.time,
    ) -> None:
        self.url, self.timeout, self._clock, self._now = url, timeout, clock, now
        local = urlsplit(url).hostname in ("localhost", "127.0.0.1", "::1")
        proxies = [urllib.request.ProxyHandler({})] if local else []
        self._opener = urllib.request.build_opener(_NoRedirect, *proxies)

    def post(self, body: dict[str, Any], key: str | None) -> Reply:
        """Send ``body`` as JSON, with ``key`` as bearer token if there is one.

        Raises:
            Fault: a timeout, a lost connection, a status of `PASSING` or from 500 on, or a response without an answer.
            InputError: another status, or a certificate that cannot be trusted.
        """
        headers = {"Content-Type": "application/json", "User-Agent": "bargain-lab"}
        if key is not None:
            headers["Authorization"] = f"Bearer {key}"
        request = urllib.request.Request(self.url, json.dumps(body).encode(), headers, method="POST")
        deadline = self._clock() + self.timeout
        try:
            with self._opener.open(request, timeout=self.timeout) as response:
                return reply_of(self._read(response, deadline))
        except urllib.error.HTTPError as error:
            with error:
                raise self._refused(error, deadline, key) from None
        except urllib.error.URLError as error:
            raise self._unreached(error.reason) from None
        except TimeoutError:
            raise Fault("timed out") from None
        except (OSError, http.client.HTTPException) as error:
            raise Fault(f"connection lost ({type(error).__name__})") from None
        except UnicodeError:
            raise InputError(f"{self.url} has no host that can be looked up; correct the address") from None

    def _read(self, response: Any, deadline: float) -> bytes:
        """The body, in time: a socket's own timeout starts anew with every byte."""
        parts, size = [], 0
        while part := response.read1(65536):
            parts.append(part)
            size += len(part)
            if size > MAX_BODY:
                raise Fault("an endless response")
            if self._clock() > deadline:
                raise Fault("timed out")
        return b"".join(parts)

    def _refused(self, error: urllib.error.HTTPError, deadline: float, key: str | None) -> Exception:
        """What a status that is no success amounts to."""
        status = f"{error.code} {http.client.responses.get(error.code, '')}".strip()
        if error.code in PASSING or error.code >= 500:
            return Fault(status, retry_after(error.headers.get("Retry-After"), self._now()))
        try:
            said = _complaint(self._read(error, deadline))
        except (Fault, OSError, http.client.HTTPException):
            said = ""
        if key:
            said = said.replace(key, "[key]")
        if 300 <= error.code < 400:
            said, advice = error.headers.get("Location", ""), "redirects are not followed; give the final address"
        else:
            advice = ADVICE.get(error.code, "check the model and the options")
        return InputError(f"{self.url} answered {status}{f': {said}' if said else ''}; {advice}")

    def _unreached(self, reason: Any) -> Exception:
        """What a failure to connect or to send amounts to."""
        if isinstance(reason, ssl.SSLCertVerificationError):
            return InputError(
                f"{self.url}: {reason.verify_message}; check the address or the certificates of this machine"
            )
        if isinstance(reason, TimeoutError):
            return Fault("timed out")
        nobody = isinstance(reason, ConnectionRefusedError | socket.gaierror)
        words = getattr(reason, "strerror", None) or type(reason).__name__
        return Fault(f"no connection ({words})", reached=not nobody)


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """Leaves redirects to be seen as what they are."""

    def redirect_request(self, *_: Any) -> None:
        """None means: not followed."""


def reply_of(body: bytes) -> Reply:
    """The reply in the body of a chat completion.

    Raises:
        Fault: it is not JSON, or holds no choice with a message.
    """
    try:
        choice = json.loads(body)["choices"][0]
        content = choice["message"]["content"]
        cut = choice.get("finish_reason") == "length"
    except (ValueError, RecursionError):
        raise Fault("a response that is not JSON") from None
    except (KeyError, IndexError, TypeError, AttributeError):
        raise Fault("a response without an answer") from None
    if isinstance(content, list):  # in parts, as some servers give it
        content = "".join(str(part.get("text", "")) for part in content if isinstance(part, dict))
    return Reply(content if isinstance(content, str) else "", cut)


def retry_after(value: str | None, now: float) -> float | None:
    """Seconds that a ``Retry-After`` header asks for, given as such or as a date; None without or with neither."""
    if value is None:
        return None
    try:
        seconds = float(value)
    except ValueError:
        try:
            seconds = email.utils.parsedate_to_datetime(value).timestamp() - now
        except (ValueError, OverflowError):
            return None
    return max(0.0, seconds) if math.isfinite(seconds) else None


def _complaint(body: bytes) -> str:
    """What a server says is wrong: the message in its JSON, or the first line of the body."""
    text = body.decode("utf-8", "replace").strip()
    try:
        found = json.loads(text)
        text = str(found.get("error", {}).get("message") or found.get("message") or text)
    except (ValueError, AttributeError, RecursionError):
        pass
    line = "".join(c if c.isprintable() else " " for c in text.splitlines()[0]) if text else ""
    return line[:SHOWN]
