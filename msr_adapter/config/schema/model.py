"""A model in one of its roles."""

from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit

from pydantic import Field, field_validator, model_validator

from msr_adapter.config.schema.backends import BACKENDS, BackendName, BackendRow, backend_row
from msr_adapter.config.schema.base import (
    MOST_PIXELS,
    MOST_PROCESSES,
    MOST_SECONDS,
    Count,
    Seconds,
    StrictModel,
    allowed,
)
from msr_adapter.redaction import redact

AUTO = "auto"
"""The template is found from the model's own files."""


class ServerConfig(StrictModel):
    """An OpenAI-compatible endpoint."""

    url: str = Field(pattern=r"^https?://[^/]", json_schema_extra=allowed("a URL that begins with http:// or https://"))
    """Base address, mostly ending in `/v1`: requests go to `URL/chat/completions`, and for
    likelihoods of whole texts to `URL/completions`."""
    key_variable: str | None = None
    """Environment variable that holds the key; null = no key. The key itself is never written anywhere."""
    concurrency: int = Field(8, ge=1, le=MOST_PROCESSES)
    """Requests under way at a time."""
    timeout: Seconds = 120
    """Seconds an answer may take."""
    retries: int = Field(5, ge=0, le=100)
    """Further attempts at a request after a drop, a time-out, a broken answer, 429 or a 5xx."""
    first_wait: float = Field(1, ge=0, le=MOST_SECONDS)
    """Seconds before the first retry at most; doubles with each, drawn at random below that."""
    longest_wait: float = Field(60, ge=0, le=MOST_SECONDS)
    """Longest pause in seconds, whatever the server asks for."""
    top_logprobs: int = Field(20, ge=2, le=1_000_000)
    """Of `evaluate.scorer`: alternatives to the first token that are asked for, and among which the answers must be,
    where the server takes no numbers of tokens (see `docs/servers.md`)."""
    bounded_share: float = Field(0.05, ge=0, le=1)
    """Of `evaluate.scorer`: the largest share of candidates of which one answer may be missing among the alternatives.
    Their score is a bound, counted and marked; a candidate with neither answer ends the stage in any case."""
    compare_prompts: bool = True
    """Of `evaluate.scorer`: ask the server's `/tokenize` for some prompts and refuse tokens that were not trained."""

    @field_validator("url")
    @classmethod
    def _without_secrets(cls, url: str) -> str:
        if redact(url) != url:
            raise ValueError("a URL is written down with the run: name the variable of its key in key_variable")
        try:
            place = urlsplit(url)
            known = bool(place.hostname) and (place.port is None or place.port > 0) and url.isprintable()
        except ValueError:
            known = False
        if not known:
            raise ValueError("not the address of a server, such as http://localhost:8000/v1")
        return url


class ModelConfig(StrictModel):
    """A model in one of the three roles, and everything that decides how a prompt reaches it."""

    path: str
    """`tiny` (bundled, 1M parameters), a local folder, or a hub id."""
    revision: str | None = None
    """Branch, tag or commit of a hub model."""
    template: str = AUTO
    """LLaMA-Factory template name. auto: the model's own, read from its files, for the families of docs/models.md;
    another model needs the name, and a name that is not the model's own is refused."""
    default_system: str | None = None
    """Replaces the template's system text; an empty string removes it."""
    image_max_pixels: int = Field(262_144, ge=784, le=MOST_PIXELS)
    """Larger images are shrunk to this many pixels before the model sees them."""
    image_min_pixels: int = Field(1_024, ge=1, le=MOST_PIXELS)
    """Smaller images are enlarged to this many pixels."""
    dtype: Literal["float32", "bfloat16", "float16"] = "float32"
    """Precision of the weights in training and scoring."""
    adapter: Path | None = None
    """Folder of a LoRA adapter that PEFT or LLaMA-Factory saved: part of the model from the start."""
    quantization: Literal["none", 4, 8] = "none"
    """Bits of a weight once loaded, by bitsandbytes (not installed with msr); 4 take a quarter of bfloat16's memory.
    Training (see `train.method: qlora`) and scoring use the same bits."""
    batch_size: Count | Literal["auto"] = "auto"
    """Prompts of a forward pass, at most. auto: as many as fit. Halved whenever memory runs out."""
    backend: BackendName = "huggingface"
    """huggingface: loaded here by transformers. vllm: loaded here by vLLM (docs/engines.md). auto: vllm where it is
    installed and a GPU is seen, else huggingface. server: asked over HTTP, for the summarisers and `evaluate.scorer`;
    `path` is its name there. `scripted` answers by rule, for tests of the machinery only."""
    server: ServerConfig | None = None
    """Read when `backend` is `server`."""

    @property
    def backend_row(self) -> BackendRow:
        """All facts of the backend."""
        return backend_row(self.backend)

    @property
    def reference(self) -> "ModelConfig":
        """The same model, answered by transformers where it is loaded on this machine."""
        return self.model_copy(update={"backend": "huggingface"}) if self.backend_row.local else self

    @model_validator(mode="after")
    def _remote_has_an_address(self) -> "ModelConfig":
        if self.backend_row.remote and self.server is None:
            raise ValueError(f"backend {self.backend} needs server.url")
        return self

    @model_validator(mode="after")
    def _weights_are_local(self) -> "ModelConfig":
        if self.backend_row.local and not self.backend_row.quantizes and self.quantization != "none":
            raise ValueError(f"backend {self.backend} loads whole weights: quantization needs backend huggingface")
        if not self.backend_row.local and (self.adapter is not None or self.quantization != "none"):
            local = " or ".join(row.name for row in BACKENDS if row.local)
            raise ValueError(f"adapter and quantization need backend {local}; {self.backend} loads no weights here")
        return self
