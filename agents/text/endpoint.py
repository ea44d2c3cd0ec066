"""A chat model behind an OpenAI-compatible HTTP endpoint: many questions at a time, patient, and never asked twice."""

from __future__ import annotations

import os
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from bargain_env.errors import InputError

from .cache import AnswerCache, digest
from .chat import Question, Reply
from .wire import Fault, Wire

PATH = "/chat/completions"
FIRST_WAIT = 0.5
"""Seconds before the second attempt, on average; each later wait is twice as long."""
LONGEST_WAIT = 120.0
"""Seconds; no wait of our own is longer, and a server that asks for more is not asked again."""


@dataclass(frozen=True, slots=True)
class EndpointSettings:
    """Where a model is served, and how it is asked.

    Attributes:
        url: ``http(s)://HOST[:PORT]/v1``.
        model: its name there.
        temperature: of its sampling; None leaves it to the server.
        max_tokens: of an answer; models that reason before they answer need hundreds.
        key_env: name of the environment variable with the API key; empty sends none. The key itself is nowhere kept.
        timeout: seconds for one attempt.
        retries: further attempts.
        concurrency: requests at a time.
        cache: folder that keeps the answers, so that a tournament can be resumed; empty for none.

    Raises:
        InputError: a value is out of its range, or the key is not there or cannot be sent.
    """

    url: str
    model: str
    temperature: float | None = 0.0
    max_tokens: int = 64
    key_env: str = ""
    timeout: float = 60.0
    retries: int = 4
    concurrency: int = 8
    cache: str = ""

    def __post_init__(self) -> None:
        _check_url(self.url)
        if not self.model:
            raise InputError(f"no model is named; write it after #, as in text:{self.url}#MODEL")
        limits = {"max_tokens": (1, 10**6), "retries": (0, 20), "concurrency": (1, 256), "timeout": (1e-3, 86400.0)}
        if self.temperature is not None:
            limits["temperature"] = (0.0, 10.0)
        for name, (low, high) in limits.items():
            if not low <= getattr(self, name) <= high:
                raise InputError(
                    f"{name} {getattr(self, name)} of {self.url} is outside [{low:g}, {high:g}]; choose another"
                )
        self.key()

    def key(self) -> str | None:
        """The API key, from the environment.

        Raises:
            InputError: it is not there, or could not stand in a header.
        """
        if not self.key_env:
            return None
        key = os.environ.get(self.key_env, "").strip()
        if not key:
            raise InputError(f"environment variable {self.key_env!r} is empty; export the key of {self.url} in it")
        if not (key.isascii() and key.isprintable()):
            raise InputError(
                f"environment variable {self.key_env!r} does not hold a key: it has unprintable characters"
            )
        return key


def _check_url(url: str) -> None:
    try:
        parts = urlsplit(url)
        bad = parts.scheme not in ("http", "https") or not parts.hostname or bool(parts.query or parts.fragment)
        bad = bad or parts.port == 0 or not url.isprintable() or " " in url
    except ValueError:
        bad = True
    if bad:
        raise InputError(f"{url!r} is not the address of an endpoint; give http://HOST:PORT/v1")
    if "@" in parts.netloc:
        raise InputError(
            "an endpoint's address must not hold a password; put the key in an environment variable and name it"
        )


class Endpoint:
    """A `ChatModel` over HTTP.

    An attempt that fails for a passing reason is repeated after a wait that doubles each time, shaken by the question's own
    jitter, and is no shorter than the server's ``Retry-After``. When the attempts are used up the reply is None and is not
    kept; play goes on, and a later run with the same ``cache`` asks for just that again.

    Args:
        settings: where and how.
        sleep: waits some seconds; by default a wait that ends early when another question brings the batch down.
        clock: see `Wire`.
        now: see `Wire`.

    Attributes:
        counts: ``asked`` requests that were sent, ``kept`` questions answered without one, ``failed`` questions left
            without answer.
        faults: how often an attempt failed for each reason.
    """

    def __init__(
        self,
        settings: EndpointSettings,
        sleep: Callable[[float], None] | None = None,
        clock: Callable[[], float] = time.monotonic,
        now: Callable[[], float] = time.time,
    ) -> None:
        self.settings, self._sleep = settings, sleep
        base = settings.url.rstrip("/")
        self._wire = Wire(base if base.endswith(PATH) else base + PATH, settings.timeout, clock, now)
        self._cache = AnswerCache(Path(settings.cache) if settings.cache else None)
        self._lock, self._reached = threading.Lock(), False
        self.counts: Counter[str] = Counter()
        self.faults: Counter[str] = Counter()

    def answer(self, questions: Sequence[Question]) -> list[Reply]:
        """One reply for each question, in order; questions that are the same are asked once.

        Raises:
            InputError: the server refuses, or cannot be reached and never was.
        """
        requests = [self._request(question) for question in questions]
        keys = [digest(request) for request in requests]
        replies: dict[str, Reply] = {}
        missing: dict[str, tuple[Question, dict[str, Any]]] = {}
        for key, question, request in zip(keys, questions, requests, strict=True):
            kept = self._cache.get(key, request)
            if kept is None:
                missing[key] = (question, request)
            else:
                replies[key] = kept
        self._count("kept", len(questions) - len(missing))
        replies |= self._ask_all(missing)
        return [replies[key] for key in keys]

    def _ask_all(self, missing: dict[str, tuple[Question, dict[str, Any]]]) -> dict[str, Reply]:
        """Ask several at a time; the first error ends them all."""
        if not missing:
            return {}
        stop = threading.Event()
        pool = ThreadPoolExecutor(min(self.settings.concurrency, len(missing)), thread_name_prefix="endpoint")
        try:
            asked = {key: pool.submit(self._ask, key, *one, stop) for key, one in missing.items()}
            for one in wait(asked.values(), return_when=FIRST_EXCEPTION).done:
                one.result()  # raises what it raised, while others may still be waiting for an answer
            return {key: one.result() for key, one in asked.items()}
        finally:  # an interrupt too: whoever waits for another attempt wakes up and goes
            stop.set()
            pool.shutdown(wait=False, cancel_futures=True)

    def _ask(self, key: str, question: Question, request: dict[str, Any], stop: threading.Event) -> Reply:
        """Ask until there is a reply or a reason to give up, or until another question has ended it for all."""
        sleep = self._sleep or stop.wait
        attempt = 0
        while not stop.is_set():
            self._count("asked")
            try:
                reply = self._wire.post(request["body"], self.settings.key())
                self._reached = True
                self._cache.put(key, request, reply)
                return reply
            except Fault as fault:
                pause = self._noted(fault, question, attempt)
            except BaseException:
                stop.set()
                raise
            if pause is None:
                self._count("failed")
                break
            sleep(pause)
            attempt += 1
        return Reply(None)

    def _noted(self, fault: Fault, question: Question, attempt: int) -> float | None:
        """Seconds until the next attempt, or None if there is to be none.

        Raises:
            InputError: that was the last, and nobody has ever answered at this address.
        """
        with self._lock:
            self.faults[fault.reason] += 1
            self._reached |= fault.reached
        pause = max(backoff(attempt, question.jitter), fault.wait or 0.0)
        if attempt < self.settings.retries and pause <= LONGEST_WAIT:
            return pause
        if not self._reached:
            raise InputError(f"{self.settings.url}: {fault.reason}; start the server or correct the address")
        return None

    def _request(self, question: Question) -> dict[str, Any]:
        """What determines an answer: the address and the body of the request."""
        body = {
            "model": self.settings.model,
            "messages": [{"role": "user", "content": question.prompt}],
            "max_tokens": self.settings.max_tokens,
            "seed": question.seed,
        }
        if self.settings.temperature is not None:
            body["temperature"] = self.settings.temperature
        return {"url": self._wire.url, "body": body}

    def _count(self, what: str, times: int = 1) -> None:
        with self._lock:
            self.counts[what] += times


def backoff(attempt: int, jitter: Sequence[float]) -> float:
    """Seconds to wait after attempt number ``attempt``, from 0: `FIRST_WAIT` times 2**attempt, times ½ to 1½ by the jitter.

    Args:
        attempt: from 0.
        jitter: numbers in [0, 1), one an attempt; those that are missing count as ½.
    """
    shaken = jitter[attempt] if attempt < len(jitter) else 0.5
    return min(FIRST_WAIT * 2.0**attempt * (0.5 + shaken), LONGEST_WAIT)


OPTIONS = tuple(f.name for f in fields(EndpointSettings) if f.name not in ("url", "model"))
"""What a spec may say after the address."""
