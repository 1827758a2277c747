"""Parameters of the exports."""

from typing import Literal

from pydantic import Field

from steps.parameters import Parameters


class HubParameters(Parameters):
    """A push to the Hugging Face hub.

    The token is that of the hub's own client (``HF_TOKEN``, or ``hf auth login``); it is no parameter.
    """

    repository: str = Field(
        pattern=r"^[\w.-]+/[\w.-]+$", description="owner/name; made where it is not there, as a model repository"
    )
    what: Literal["merged", "adapter"] = Field(
        default="merged",
        description="which directory is pushed, whole; its provenance.json without folders of this machine",
    )
    private: bool = Field(
        default=True, description="visibility of the repository; one that is there must have it already"
    )
    dry_run: bool = Field(default=True, description="only report what would be pushed: files, sizes and repository")


class ExportParameters(Parameters):
    """What is made of the merged model once promotion is decided; nothing by default."""

    quantized: Literal["nf4", "fp4", "int8"] | None = Field(
        default=None,
        description="quantise the merged model with bitsandbytes: QLoRA, Dettmers et al. 2023, arXiv:2305.14314; "
        "LLM.int8(), Dettmers et al. 2022, arXiv:2208.07339",
    )
    gguf: Literal["f16", "bf16", "q8_0"] | None = Field(
        default=None,
        description="write a GGUF file for llama.cpp with matrices of this type; q8_0 has blocks of 32 8-bit values",
    )
    hub: HubParameters | None = Field(default=None, description="push to the Hugging Face hub, only what is promoted")
    max_prompts: int = Field(default=8, gt=0, description="test rows on which a copy and the merged model are compared")
    max_quantized_loss_difference: float = Field(
        default=0.5,
        gt=0,
        description="largest difference of the mean completion loss of the quantised copy, in nats per token; "
        "docs/decisions.md has what was measured",
    )
    max_gguf_loss_difference: float = Field(
        default=0.05,
        gt=0,
        description="the same for the GGUF copy",
    )

    @property
    def any(self) -> bool:
        """Whether anything is asked for."""
        return bool(self.quantized or self.gguf or self.hub)
