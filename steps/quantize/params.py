"""Parameters of the quantisation."""

from typing import Literal

from pydantic import Field

from steps.parameters import Parameters


class QuantizationParameters(Parameters):
    """bitsandbytes 4-bit quantisation (QLoRA, Dettmers et al. 2023, arXiv:2305.14314)."""

    kind: Literal["nf4", "fp4"] = Field(default="nf4", description="4-bit data type of the weights")
    double_quantization: bool = Field(default=True, description="quantise the quantisation constants too")
    compute_dtype: Literal["auto", "bfloat16", "float16", "float32"] = Field(
        default="auto", description="type of the arithmetic; auto takes bfloat16 where the hardware has it"
    )
