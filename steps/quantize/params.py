"""Parameters of the quantisation."""

from typing import Literal, Self

from pydantic import Field, model_validator

from steps.parameters import Parameters

FOUR_BITS = ("nf4", "fp4")


class QuantizationParameters(Parameters):
    """bitsandbytes quantisation of the base model, and the plain model for LoRA without it.

    4 bits: QLoRA, Dettmers et al. 2023, arXiv:2305.14314. int8: LLM.int8(), Dettmers et al. 2022, arXiv:2208.07339.
    """

    kind: Literal["nf4", "fp4", "int8", "none"] = Field(
        default="nf4", description="data type of the linear layers' weights; none leaves the base model as it is"
    )
    double_quantization: bool | None = Field(
        default=None,
        description="nf4 and fp4 only: quantise the quantisation constants too; null: yes, or as a model that comes "
        "quantised has it",
    )
    compute_dtype: Literal["auto", "bfloat16", "float16", "float32"] = Field(
        default="auto",
        description="nf4 and fp4 only: type of the arithmetic that the stored model names; auto takes bfloat16 where "
        "the hardware has it",
    )

    @model_validator(mode="after")
    def _only_in_four_bits(self) -> Self:
        if self.kind not in FOUR_BITS:
            for name, given in (
                ("double_quantization", self.double_quantization is not None),
                ("compute_dtype", self.compute_dtype != "auto"),
            ):
                if given:
                    raise ValueError(f"{name} has no meaning with kind {self.kind}; remove it, or use nf4 or fp4")
        return self

    @property
    def nested(self) -> bool:
        """Whether the quantisation constants are quantised too: in 4 bits, unless that is switched off."""
        return self.kind in FOUR_BITS and self.double_quantization is not False
