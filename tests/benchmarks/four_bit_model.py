"""A random Llama made straight in 4 bits, matrix by matrix: never there at full precision, however large it is."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

SHAPES: dict[str, dict[str, int]] = {
    "llama-2-70b": {"hidden": 8192, "inner": 28672, "layers": 80, "heads": 64, "kv_heads": 8},
    "tiny-70b": {"hidden": 64, "inner": 192, "layers": 4, "heads": 4, "kv_heads": 2},
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
    sizes = SHAPES[shape]
    quantization: Any = BitsAndBytesConfig(  # type: ignore[no-untyped-call]  # transformers has no types there
        load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True, bnb_4bit_compute_dtype="bfloat16"
    )
    config = LlamaConfig.from_dict(
        {
            "vocab_size": words,
            "hidden_size": sizes["hidden"],
            "intermediate_size": sizes["inner"],
            "num_hidden_layers": sizes["layers"],
            "num_attention_heads": sizes["heads"],
            "num_key_value_heads": sizes["kv_heads"],
            "pad_token_id": 3,
            "architectures": ["LlamaForCausalLM"],
            "dtype": "bfloat16",
        }
    )
    config.quantization_config = quantization.to_dict()
    config.save_pretrained(folder)
    torch.manual_seed(0)
    _write_tensors(folder, sizes, words, torch.device("cuda" if torch.cuda.is_available() else "cpu"))
    write_provenance(
        folder, base_model=ModelLock(name=shape, folder=str(folder), files={}), quantization=QuantizationParameters()
    )


def _write_tensors(folder: Path, sizes: dict[str, int], words: int, device: Any) -> None:
    """A file for each layer and one for the rest, and their index."""
    import torch
    from safetensors.torch import save_file

    def small(*shape: int) -> torch.Tensor:
        return (STANDARD_DEVIATION * torch.randn(*shape, device=device)).bfloat16().cpu()

    hidden = sizes["hidden"]
    places: dict[str, str] = {}
    rest = {
        "model.embed_tokens.weight": small(words, hidden),
        "lm_head.weight": small(words, hidden),
        "model.norm.weight": torch.ones(hidden, dtype=torch.bfloat16),
    }
    files = [("rest", rest)]
    for number in range(sizes["layers"] + 1):
        name, tensors = files.pop()
        save_file(tensors, folder / f"model-{name}.safetensors", metadata={"format": "pt"})
        places |= dict.fromkeys(tensors, f"model-{name}.safetensors")
        if number < sizes["layers"]:
            files.append((str(number), dict(_layer(sizes, f"model.layers.{number}.", device))))
    index = {"metadata": {}, "weight_map": places}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index), encoding="utf-8")


def _layer(sizes: dict[str, int], prefix: str, device: Any) -> Iterator[tuple[str, Any]]:
    """A decoder layer's tensors by their names."""
    import torch
    from bitsandbytes.functional import quantize_4bit

    hidden, inner = sizes["hidden"], sizes["inner"]
    keys = hidden // sizes["heads"] * sizes["kv_heads"]
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
