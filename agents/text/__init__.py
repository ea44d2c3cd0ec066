"""An unadapted chat model at the table, by natural language: the base-model opponent of Janus.

A spec names it in every command, as an agent or as an opponent: ``text:http://HOST:PORT/v1#MODEL`` or ``text:MODEL_DIR``;
see `agents.text.spec`. Importing this package does not import torch.
"""

from .answers import Answer, read_answer
from .chat import ChatModel, Question, Reply
from .endpoint import Endpoint, EndpointSettings
from .policy import TextPolicy
from .prompt import STYLES, Facts, build_text_prompt, facts_of
from .spec import make_text

__all__ = [
    "STYLES",
    "Answer",
    "ChatModel",
    "Endpoint",
    "EndpointSettings",
    "Facts",
    "Question",
    "Reply",
    "TextPolicy",
    "build_text_prompt",
    "facts_of",
    "make_text",
    "read_answer",
]
