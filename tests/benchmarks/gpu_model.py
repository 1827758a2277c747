"""The GPU benchmark's model and data: random weights of Llama-2-7B's shape, and random documents packed into blocks."""

import random
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

BLOCK = 512
SHAPES = {
    "llama-2-7b": {"hidden_size": 4096, "intermediate_size": 11008, "num_hidden_layers": 32, "num_attention_heads": 32},
    "small": {"hidden_size": 512, "intermediate_size": 1536, "num_hidden_layers": 4, "num_attention_heads": 8},
    "tiny": {"hidden_size": 64, "intermediate_size": 192, "num_hidden_layers": 2, "num_attention_heads": 2},
}
WORDS = 32000


def make_model(folder: Path, shape: str) -> None:
    """A random model at full precision, then in 4 bits by the quantize room; made once, then found."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    from steps.quantize.params import QuantizationParameters
    from steps.quantize.quantize import quantize_model
    from steps.resolve.locks import ModelLock

    base, quantized = folder / "base", folder / "quantized"
    if (quantized / "provenance.json").is_file():
        return
    for path in (base, quantized):
        path.mkdir(parents=True, exist_ok=True)
    start = time.monotonic()
    torch.manual_seed(0)
    torch.set_default_dtype(torch.bfloat16)
    config = LlamaConfig.from_dict({"vocab_size": WORDS, "pad_token_id": 3, **SHAPES[shape]})
    with torch.device("cuda" if torch.cuda.is_available() else "cpu"):
        model = LlamaForCausalLM(config)
    model.save_pretrained(base)
    tokenizer().save_pretrained(base)  # other tools ask for one
    torch.set_default_dtype(torch.float32)
    del model
    made = time.monotonic()
    files = {path.name: "not hashed" for path in base.glob("*.safetensors")}
    quantize_model(ModelLock(name=shape, folder=str(base), files=files), QuantizationParameters(), quantized)
    print(f"made the model in {made - start:.0f} s, quantised it in {time.monotonic() - made:.0f} s", flush=True)


def blocks(count: int) -> Iterator[dict[str, list[int]]]:
    """Full blocks of random documents, some 170 tokens each, the last one cut to fill its block.

    Words are drawn log-uniformly (7.5 nats each, against 10.4 at the start), so that there is something to learn.
    """
    source = random.Random(0)  # noqa: S311 - test data
    for _ in range(count):
        ids: list[int] = []
        lengths: list[int] = []
        while len(ids) < BLOCK:
            length = min(max(24, int(source.lognormvariate(4.9, 0.6))), BLOCK - len(ids))
            ids += [1, *(int(4 * (WORDS / 4) ** source.random()) for _ in range(length - 1))]
            lengths.append(length)
        yield {"input_ids": ids, "labels": ids, "seq_lengths": lengths}


def tokenizer() -> Any:
    """One token a word; the trainer wants one, the data are tokenised."""
    from tokenizers import Tokenizer, models
    from transformers import PreTrainedTokenizerFast

    words = {"<unk>": 0, "<s>": 1, "</s>": 2, "<pad>": 3, **{f"w{i}": i for i in range(4, WORDS)}}
    return PreTrainedTokenizerFast(  # type: ignore[no-untyped-call]  # transformers has no types there
        tokenizer_object=Tokenizer(models.WordLevel(words, unk_token="<unk>")),
        bos_token="<s>",
        eos_token="</s>",
        pad_token="<pad>",
        unk_token="<unk>",
    )
