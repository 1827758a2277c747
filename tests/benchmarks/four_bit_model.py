"""A random Llama made straight in 4 bits, matrix by matrix: never there at full precision, however large it is."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

SHAPES: dict[str, dict[str, int]] = {
    "llama-2-70b": {
        "hidden_size": 8192,
        "intermediate_size": 28672,
        "num_hidden_layers": 80,
        "num_attention_heads": 64,
        "num_key_value_heads": 8,
    },
    "tiny-70b": {
        "hidden_size": 64,
        "intermediate_size": 192,
        "num_hidden_layers": 4,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
    },
}
STANDARD_DEVIATION = 0.02
"""Of the random weights, as Llama's are when training begins."""


def make_four_bit_model(folder: Path, shape: str, words: int) -> None:
    """Write a model in NF4 with double quantisation into ``folder``, as the quantize room does; made once."""
    import torch
    from transformers import BitsAndBytesConfig, LlamaConfig

    from steps.provenance import write_provenance
    from steps.quantize.params import QuantizationParameters
    from steps.resolve.locks import ModelLock

    if (folder / "provenance.json").is_file():
        return
    folder.mkdir(parents=True, exist_ok=True)
    quantization: Any = BitsAndBytesConfig(  # type: ignore[no-untyped-call]  # transformers has no types there
        load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True, bnb_4bit_compute_dtype="bfloat16"
    )
    kind = {"pad_token_id": 3, "architectures": ["LlamaForCausalLM"], "dtype": "bfloat16"}
    config = LlamaConfig.from_dict({"vocab_size": words, **SHAPES[shape], **kind})
    config.quantization_config = quantization.to_dict()
    config.save_pretrained(folder)
    torch.manual_seed(0)
    _write_tensors(folder, config, torch.device("cuda" if torch.cuda.is_available() else "cpu"))
    write_provenance(
        folder, base_model=ModelLock(name=shape, folder=str(folder), files={}), quantization=QuantizationParameters()
    )


def _write_tensors(folder: Path, config: Any, device: "torch.device") -> None:
    """A file for each layer and one for the rest, and their index."""
    import torch
    from safetensors.torch import save_file

    places: dict[str, str] = {}

    def small(*shape: int) -> torch.Tensor:
        return (STANDARD_DEVIATION * torch.randn(*shape, device=device)).bfloat16().cpu()

    def write(name: str, tensors: dict[str, torch.Tensor]) -> None:
        save_file(tensors, folder / f"model-{name}.safetensors", metadata={"format": "pt"})
        places.update(dict.fromkeys(tensors, f"model-{name}.safetensors"))

    words, hidden = config.vocab_size, config.hidden_size
    ends = {"model.embed_tokens.weight": small(words, hidden), "lm_head.weight": small(words, hidden)}
    write("rest", {**ends, "model.norm.weight": torch.ones(hidden, dtype=torch.bfloat16)})
    for number in range(config.num_hidden_layers):
        write(str(number), dict(_layer(config, f"model.layers.{number}.", device)))
    index = {"metadata": {}, "weight_map": places}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index), encoding="utf-8")


def _layer(config: Any, prefix: str, device: "torch.device") -> "Iterator[tuple[str, torch.Tensor]]":
    """A decoder layer's tensors by their names."""
    import torch
    from bitsandbytes.functional import quantize_4bit

    hidden, inner = config.hidden_size, config.intermediate_size
    keys = hidden // config.num_attention_heads * config.num_key_value_heads
    shapes = {
        "self_attn.q_proj": (hidden, hidden),
        "self_attn.k_proj": (keys, hidden),
        "self_attn.v_proj": (keys, hidden),
        "self_attn.o_proj": (hidden, hidden),
        "mlp.gate_proj": (inner, hidden),
        "mlp.up_proj": (inner, hidden),
        "mlp.down_proj": (hidden, inner),
    }
    for norm in ("input_layernorm", "post_attention_layernorm"):
        yield f"{prefix}{norm}.weight", torch.ones(hidden, dtype=torch.bfloat16)
    for name, shape in shapes.items():
        weight = (STANDARD_DEVIATION * torch.randn(shape, device=device, dtype=torch.bfloat16)).contiguous()
        packed, state = quantize_4bit(weight, compress_statistics=True, quant_type="nf4")
        yield f"{prefix}{name}.weight", packed.cpu()
        for part, value in state.as_dict(packed=True).items():
            yield f"{prefix}{name}.weight.{part}", value.cpu()
