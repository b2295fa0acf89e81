"""What may be asked, in OpenAI's form and in the short one; whatever is not supported is refused with its name."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator

from worker.engine.protocol import Sampling

MAX_CHARS = 100_000
MAX_MESSAGES = 200
MAX_STOPS, MAX_STOP_CHARS = 4, 200
DEFAULT_TOKENS = 256
Text = Annotated[str, Field(min_length=1, max_length=MAX_CHARS)]


class StreamOptions(BaseModel):
    """OpenAI's `stream_options`."""

    model_config = ConfigDict(extra="forbid")
    include_usage: bool = False


class Drawn(BaseModel):
    """How an answer is drawn, and how it is sent."""

    model_config = ConfigDict(extra="forbid")

    model: str = ""
    """There is one model; another name is refused."""
    max_tokens: Annotated[int, Field(ge=1, le=32_768)] = DEFAULT_TOKENS
    temperature: Annotated[float, Field(ge=0.0, le=2.0)] = 0.8
    top_p: Annotated[float, Field(gt=0.0, le=1.0)] = 0.95
    repetition_penalty: Annotated[float, Field(gt=0.0, le=2.0)] = 1.0
    seed: Annotated[int, Field(ge=0, lt=2**63)] | None = None
    stop: list[Annotated[str, Field(min_length=1, max_length=MAX_STOP_CHARS)]] = Field(default=[], max_length=MAX_STOPS)
    n: Literal[1] = 1
    stream: bool = False
    stream_options: StreamOptions | None = None
    user: str | None = None

    @field_validator("stop", mode="before")
    @classmethod
    def _one_or_many(cls, value: Any) -> Any:
        return [] if value is None else [value] if isinstance(value, str) else value

    def sampling(self) -> Sampling:
        """For the engine."""
        return Sampling(
            max_tokens=self.max_tokens,
            temperature=self.temperature,
            top_p=self.top_p,
            seed=self.seed,
            repetition_penalty=self.repetition_penalty,
            stop=tuple(self.stop),
        )


class Message(BaseModel):
    """One message of a conversation."""

    model_config = ConfigDict(extra="forbid")
    role: Literal["system", "user", "assistant"]
    content: Annotated[str, Field(max_length=MAX_CHARS)]
    name: str | None = None


class ChatAsked(Drawn):
    """POST /v1/chat/completions."""

    messages: list[Message] = Field(min_length=1, max_length=MAX_MESSAGES)
    max_completion_tokens: Annotated[int, Field(ge=1, le=32_768)] | None = None
    """OpenAI's newer name of `max_tokens`."""

    def sampling(self) -> Sampling:
        """For the engine."""
        if self.max_completion_tokens is not None:
            self.max_tokens = self.max_completion_tokens
        return super().sampling()


class TextAsked(Drawn):
    """POST /v1/completions."""

    prompt: Text

    @field_validator("prompt", mode="before")
    @classmethod
    def _one_of_a_list(cls, value: Any) -> Any:
        return value[0] if isinstance(value, list) and len(value) == 1 else value


class Question(BaseModel):
    """POST /ask."""

    model_config = ConfigDict(extra="forbid")
    question: Text
    history: list[tuple[str, str]] = Field(default=[], max_length=MAX_MESSAGES)
    """Earlier questions with their answers."""
    max_tokens: Annotated[int, Field(ge=1, le=32_768)] = DEFAULT_TOKENS
    temperature: Annotated[float, Field(ge=0.0, le=2.0)] = 0.8
