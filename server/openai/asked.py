"""What may be asked: the bodies of requests, checked, and as a call keeps them."""

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, StrictBool, StrictInt, StrictStr

from registry import calls, chats
from server.i18n import gettext
from server.openai.errors import ApiError

MAX_TOKENS = 4_096
MAX_LOGPROBS = 20
MAX_STOPS = 16
TEXT_MAX_TOKENS = 16
"""OpenAI's own default for completions."""
IGNORED = frozenset({"user", "store", "metadata", "service_tier", "safety_identifier", "prompt_cache_key"})
"""Fields that change no answer."""
NEUTRAL: Mapping[str, Sequence[Any]] = {
    "presence_penalty": (0,),
    "frequency_penalty": (0,),
    "best_of": (1,),
    "logit_bias": ({},),
    "tools": ([],),
    "tool_choice": ("none", "auto"),
    "functions": ([],),
    "parallel_tool_calls": (True, False),
    "response_format": ({"type": "text"},),
    "modalities": (["text"],),
    "suffix": ("",),
}
"""Fields of OpenAI's that this interface lacks, and the values that ask for nothing."""

Tokens = Annotated[list[Annotated[StrictInt, Field(ge=0)]], Field(min_length=1)]


class _Body(BaseModel):
    model_config = ConfigDict(extra="allow")


class StreamOptions(_Body):
    """`stream_options`."""

    include_usage: StrictBool = False


class TextPart(_Body):
    """A part of a message."""

    type: Literal["text"]
    text: StrictStr


class Message(_Body):
    """One message of a conversation."""

    role: Literal["system", "developer", "user", "assistant"]
    content: StrictStr | list[TextPart]

    @property
    def text(self) -> str:
        """All of it."""
        return self.content if isinstance(self.content, str) else "".join(part.text for part in self.content)


class Asked(_Body):
    """What both kinds of requests have in common."""

    model: Annotated[StrictStr, Field(min_length=1, max_length=200)]
    max_tokens: Annotated[StrictInt, Field(ge=0, le=MAX_TOKENS)] | None = None
    temperature: Annotated[float, Field(ge=0, le=2)] | None = None
    top_p: Annotated[float, Field(gt=0, le=1)] | None = None
    repetition_penalty: Annotated[float, Field(gt=0, le=2)] | None = None
    """vLLM's; not in OpenAI's interface."""
    seed: Annotated[StrictInt, Field(ge=-(2**63), lt=2**62)] | None = None
    n: Annotated[StrictInt, Field(ge=1, le=calls.MAX_CHOICES)] | None = None
    stop: StrictStr | Annotated[list[StrictStr], Field(max_length=MAX_STOPS)] | None = None
    stream: StrictBool | None = None
    stream_options: StreamOptions | None = None

    def check_rest(self) -> None:
        """Refuse what this interface lacks, unless its value asks for nothing.

        Raises:
            ApiError: 400, naming the field.
        """
        for name, value in (self.model_extra or {}).items():
            if name in IGNORED or value is None or value in NEUTRAL.get(name, ()):
                continue
            if name == "best_of" and value == (self.n or 1):
                continue
            message = (
                gettext("%(name)s is not supported here with this value.", name=name)
                if name in NEUTRAL
                else gettext("%(name)s is not a parameter of this interface.", name=name[:80])
            )
            code = "unsupported_value" if name in NEUTRAL else "unknown_parameter"
            raise ApiError(400, message, param=name, code=code)
        if self.stream_options is not None and not self.stream:
            message = gettext("stream_options is only for answers that are streamed.")
            raise ApiError(400, message, param="stream_options")

    @property
    def includes_usage(self) -> bool:
        """Whether a stream ends with what was used."""
        return self.stream_options is not None and self.stream_options.include_usage

    def params(self, max_tokens: int, logprobs: int | None) -> dict[str, Any]:
        """Sampling as a turn's."""
        stops = [self.stop] if isinstance(self.stop, str) else self.stop or []
        return {
            "max_tokens": max_tokens,
            "temperature": 1.0 if self.temperature is None else self.temperature,
            "top_p": 1.0 if self.top_p is None else self.top_p,
            "repetition_penalty": self.repetition_penalty or 1.0,
            "seed": self.seed,
            "stop": [stop for stop in stops if stop],
            "logprobs": logprobs,
            "n": self.n or 1,
        }


class ChatAsked(Asked):
    """The body of POST /v1/chat/completions."""

    messages: Annotated[list[Message], Field(min_length=1, max_length=500)]
    max_completion_tokens: Annotated[StrictInt, Field(ge=1, le=MAX_TOKENS)] | None = None
    logprobs: StrictBool | None = None
    top_logprobs: Annotated[StrictInt, Field(ge=0, le=MAX_LOGPROBS)] | None = None

    def request(self) -> dict[str, Any]:
        """As a call keeps it.

        Raises:
            ApiError: 400.
        """
        self.check_rest()
        if self.messages[-1].role != "user":
            raise ApiError(400, gettext("The last message must be the user's."), param="messages")
        if self.top_logprobs is not None and not self.logprobs:
            raise ApiError(400, gettext("top_logprobs needs logprobs to be true."), param="top_logprobs")
        given = self.max_completion_tokens if self.max_completion_tokens is not None else self.max_tokens
        if given == 0:
            raise ApiError(400, gettext("An answer has at least one token."), param="max_tokens")
        roles = {"developer": "system"}
        messages = [{"role": roles.get(one.role, one.role), "content": one.text} for one in self.messages]
        max_tokens = given if given is not None else chats.DEFAULT_MAX_TOKENS
        params = self.params(max_tokens, (self.top_logprobs or 0) if self.logprobs else None)
        return {"kind": calls.CHAT, "messages": messages, "params": params, "echo": False, "stream": bool(self.stream)}


class TextAsked(Asked):
    """The body of POST /v1/completions."""

    prompt: StrictStr | Tokens | Annotated[list[StrictStr | Tokens], Field(min_length=1)]
    logprobs: Annotated[StrictInt, Field(ge=0, le=MAX_LOGPROBS)] | None = None
    echo: StrictBool | None = None

    @property
    def prompts(self) -> list[str | list[int]]:
        """One or more texts, or lists of tokens."""
        if isinstance(self.prompt, str):
            return [self.prompt]
        if isinstance(self.prompt[0], int):
            return [[one for one in self.prompt if isinstance(one, int)]]
        return [one for one in self.prompt if not isinstance(one, int)]

    def request(self) -> dict[str, Any]:
        """As a call keeps it.

        Raises:
            ApiError: 400.
        """
        self.check_rest()
        if self.max_tokens == 0 and not self.echo:
            message = gettext("An answer has at least one token; only with echo there may be none.")
            raise ApiError(400, message, param="max_tokens")
        params = self.params(TEXT_MAX_TOKENS if self.max_tokens is None else self.max_tokens, self.logprobs)
        return {
            "kind": calls.TEXT,
            "prompts": self.prompts,
            "params": params,
            "echo": bool(self.echo),
            "stream": bool(self.stream),
        }
