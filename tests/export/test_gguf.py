"""A GGUF file says of the model and of its tokenizer what they are."""

import importlib.util
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from gguf import GGUFReader
from tokenizers import Tokenizer
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, GgufConfig, MistralConfig, MistralForCausalLM

from steps.errors import ModelError
from steps.export.gguf import plan_tensors, write_gguf
from steps.export.vocabulary import SPLITS, read_vocabulary
from steps.tokenizer import load_tokenizer
from tests.export.conftest import Export
from tests.real_tokenizers import TEXTS, gpt2_style, llama2_style, smollm2
from tests.tiny import row, write_model
from tests.tiny_run import TinyRun


@pytest.mark.parametrize(("kind", "allowed"), [("f16", 1e-3), ("bf16", 0.0), ("q8_0", 0.05)])
def test_a_file_holds_the_merged_model(export: Export, kind: str, allowed: float) -> None:
    output, report = export(gguf=kind, max_prompts=3)
    (copy,) = report.copies
    assert copy.files == [f"gguf/base-tuned.{kind.upper()}.gguf"]
    assert abs(copy.exported_loss - copy.merged_loss) <= allowed
    assert copy.tokenizer == "the same ids for every row"
    assert (output / copy.files[0]).stat().st_size == copy.bytes
    assert copy.bytes < report.merged_bytes * (0.75 if kind == "q8_0" else 1.1)


def test_keys_and_types_of_the_file(export: Export, merged: Path) -> None:
    output, report = export(gguf="q8_0", max_prompts=1)
    reader = GGUFReader(output / report.copies[0].files[0])
    values = {name: field.contents() for name, field in reader.fields.items()}
    expected = {
        "general.architecture": "llama",
        "llama.context_length": 512,
        "llama.embedding_length": 64,
        "llama.block_count": 2,
        "llama.feed_forward_length": 128,
        "llama.attention.head_count": 4,
        "llama.attention.head_count_kv": 2,
        "llama.rope.dimension_count": 16,
        "llama.rope.freq_base": 10000.0,
        "llama.vocab_size": 400,
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": "gpt-2",
        "tokenizer.ggml.bos_token_id": 1,
        "tokenizer.ggml.eos_token_id": 2,
        "tokenizer.ggml.padding_token_id": 3,
        "tokenizer.ggml.add_bos_token": True,
        "tokenizer.chat_template": (merged / "chat_template.jinja").read_text(),
    }
    assert {name: values[name] for name in expected} == expected
    assert values["llama.attention.layer_norm_rms_epsilon"] == pytest.approx(1e-6)
    assert len(values["tokenizer.ggml.tokens"]) == 400
    types = {tensor.name: tensor.tensor_type.name for tensor in reader.tensors}
    assert {types[name] for name in types if "norm" in name} == {"F32"}
    assert {types[name] for name in types if "norm" not in name} == {"Q8_0"}
    assert len(types) == 2 * 9 + 3


def test_rows_without_whole_blocks_stay_in_16_bits(tmp_path: Path) -> None:
    model = write_model(tmp_path / "model", width=48)
    types = {entry.name: entry.type for entry in plan_tensors(model, AutoConfig.from_pretrained(model), "q8_0")}
    assert types["blk.0.attn_q.weight"] == "F16"  # rows of 48
    assert types["blk.0.ffn_down.weight"] == "Q8_0"  # rows of 96


def written(folder: Path) -> Any:
    """The model of a folder, through a GGUF file and back."""
    config = AutoConfig.from_pretrained(folder)
    write_gguf(folder, config, read_vocabulary(folder, config.vocab_size), "bf16", folder / "model.gguf")
    return AutoModelForCausalLM.from_pretrained(
        folder, gguf_file="model.gguf", dtype=torch.bfloat16, quantization_config=GgufConfig(dequantize=True)
    )


@pytest.mark.parametrize("tied", [False, True])
def test_tied_embeddings_are_written_once(tmp_path: Path, tied: bool) -> None:
    model = written(write_model(tmp_path / "model", tied=tied))
    assert model.config.tie_word_embeddings is tied
    original = AutoModelForCausalLM.from_pretrained(tmp_path / "model", dtype=torch.bfloat16)
    tokens = torch.arange(4, 40)[None]
    assert torch.equal(model(tokens).logits, original(tokens).logits)


def test_mistral_is_written_as_the_llama_that_it_is(tmp_path: Path) -> None:
    folder = write_model(tmp_path / "model")
    config = MistralConfig(**json.loads((folder / "config.json").read_text()) | {"sliding_window": 128, "head_dim": 32})
    torch.manual_seed(0)
    original: Any = MistralForCausalLM(config).bfloat16()
    original.save_pretrained(folder)
    model = written(folder)
    assert model.config.max_position_embeddings == 128
    tokens = torch.arange(4, 40)[None]
    again, before = model.float()(tokens).logits, original.float()(tokens).logits
    torch.testing.assert_close(again, before, rtol=0, atol=1e-4)  # attention with a window is another kernel


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"architectures": ["GPT2LMHeadModel"]}, "GPT2LMHeadModel is not written here, only LlamaForCausalLM and"),
        ({"rope_parameters": {"rope_type": "linear", "factor": 2.0, "rope_theta": 1e4}}, "embeddings of type linear"),
    ],
)
def test_what_is_not_written_names_the_converter_that_may(
    export: Export, changeable: Path, changes: dict[str, object], message: str
) -> None:
    path = changeable / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))
    with pytest.raises(ModelError, match=rf"parameters\.exports\.gguf: .*{message}.*convert_hf_to_gguf\.py"):
        export(changeable, gguf="f16", max_prompts=1)


def test_biases_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"exports\.gguf: model\.layers\.0\.mlp\.down_proj\.bias is a bias"):
        written(write_model(tmp_path / "model", biases=True))


TRIED = [*TEXTS[:10], "x = 12345 + 7\n\n    return 'wörld'  \t日本", "I'll say 'tis 3.14 </s> more", " two  spaces"]


def read_back(folder: Path) -> Any:
    """The tokenizer of a GGUF file, as transformers reads it; the model in the file does not matter."""
    tokenizer = load_tokenizer(folder)
    model = write_model(folder / "model")
    config = AutoConfig.from_pretrained(model)
    vocabulary = read_vocabulary(folder, len(tokenizer) + 5)
    assert vocabulary.tokens[-1] == f"[PAD{len(tokenizer) + 4}]"
    alone = folder / "alone"  # beside a tokenizer.json transformers would take that
    alone.mkdir()
    write_gguf(model, config, vocabulary, "f16", alone / "tokenizer.gguf")
    return AutoTokenizer.from_pretrained(alone, gguf_file="tokenizer.gguf")


STYLES = ("smollm2", "gpt2", "llama2", "llama2 with normalizer")


def styled(folder: Path, style: str) -> Path:
    """A tokenizer of one of the families."""
    if style == "smollm2":
        load_tokenizer(smollm2()).save_pretrained(folder)
        return folder
    return gpt2_style(folder) if style == "gpt2" else llama2_style(folder, normalizer=style != "llama2")


@pytest.mark.parametrize("style", STYLES[:3])
def test_a_tokenizer_gives_the_same_ids_through_the_file(tmp_path: Path, style: str) -> None:
    folder = styled(tmp_path / "tokenizer", style)
    original, again = load_tokenizer(folder), read_back(folder)
    for text in TRIED:
        assert again(text)["input_ids"] == original(text)["input_ids"], text
    assert again.eos_token_id == original.eos_token_id


def test_the_name_of_the_split_is_that_of_the_tokenizer(tmp_path: Path) -> None:
    """llama.cpp's names by what the tokenizer does; one that does something else is refused."""
    from tokenizers import Regex, pre_tokenizers

    folder = tmp_path / "tokenizer"
    gpt2_style(folder)
    split = next(kinds[0] for kinds, name in SPLITS.items() if name == "llama-bpe")
    digits = [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    llama = [
        pre_tokenizers.Split(Regex(split), behavior="isolated"),
        pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
    ]
    for parts, name in ((digits, "smollm"), (llama, "llama-bpe")):
        put_pre_tokenizer(folder, pre_tokenizers.Sequence(parts))
        assert read_vocabulary(folder, 1000).split == name
    put_pre_tokenizer(folder, pre_tokenizers.ByteLevel(add_prefix_space=True))
    with pytest.raises(ModelError, match=r"llama\.cpp's name is not known .*ByteLevel with other settings"):
        read_vocabulary(folder, 1000)


def put_pre_tokenizer(folder: Path, pre_tokenizer: Any) -> None:
    """Change how a stored tokenizer splits text."""
    path = str(folder / "tokenizer.json")
    tokenizer = Tokenizer.from_file(path)
    tokenizer.pre_tokenizer = pre_tokenizer
    tokenizer.save(path)


needs_llama_cpp = pytest.mark.skipif(
    importlib.util.find_spec("llama_cpp") is None, reason="llama-cpp-python is not installed"
)


@needs_llama_cpp
@pytest.mark.parametrize("style", STYLES)
def test_llama_cpp_gives_the_same_ids(tmp_path: Path, style: str) -> None:
    from llama_cpp import Llama  # type: ignore[import-not-found]  # optional: a build takes minutes

    folder = styled(tmp_path / "tokenizer", style)
    original, again = load_tokenizer(folder), read_back(folder)
    begins = original("a")["input_ids"][0] == original.bos_token_id
    assert again.bos_token_id == original.bos_token_id
    file = Llama(str(folder / "alone" / "tokenizer.gguf"), vocab_only=True, verbose=False)
    # SentencePiece puts a space before one that is there; transformers' newer form of it does not
    texts = TRIED[:-2] if style == "llama2" else TRIED
    for text in texts:
        assert file.tokenize(text.encode(), add_bos=begins, special=True) == original(text)["input_ids"], text
    file.close()


@needs_llama_cpp
@pytest.mark.parametrize("kind", ["f16", "bf16", "q8_0"])
def test_llama_cpp_answers_a_chat_as_transformers_does(
    export: Export, tiny_run: TinyRun, merged: Path, kind: str
) -> None:
    """The real llama.cpp on the file: the prompt's ids, then greedy tokens up to where two logits nearly tie."""
    from llama_cpp import Llama

    output, report = export(gguf=kind, max_prompts=1)
    file = Llama(str(output / report.copies[0].files[0]), n_ctx=512, n_threads=1, verbose=False)
    tokenizer = load_tokenizer(merged)
    chat = [{"role": "user", "content": row(3)["instruction"]}]
    text = str(tokenizer.apply_chat_template(chat, add_generation_prompt=True, tokenize=False))
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    begins = text.startswith(str(tokenizer.bos_token))
    assert begins or ids == tokenizer(text)["input_ids"][1:]
    assert file.tokenize(text.encode(), add_bos=False, special=True) == ids
    model: Any = AutoModelForCausalLM.from_pretrained(merged, dtype=torch.float32)
    expected = model.generate(torch.tensor([ids]), max_new_tokens=24, do_sample=False)[0, len(ids) :].tolist()
    answered = []
    for token in file.generate(ids, temp=0.0, top_k=1, repeat_penalty=1.0):
        answered.append(token)
        if len(answered) == len(expected):
            break
    file.close()
    assert answered == expected
