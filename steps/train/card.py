"""The adapter's card, README.md in its directory: what it belongs to and how to load it.

It was not measured yet when it is written; the figures are in the merged model's card.
"""

from pathlib import Path

from steps.markdown import code, fenced
from steps.quantize.params import QuantizationParameters
from steps.resolve.locks import ModelLock
from steps.train.params import TrainingParameters


def write_adapter_card(
    folder: Path, base: ModelLock, quantization: QuantizationParameters, training: TrainingParameters
) -> None:
    """Write README.md."""
    from huggingface_hub import ModelCard, ModelCardData

    data = ModelCardData(
        base_model=base.hub or None, library_name="peft", pipeline_tag="text-generation", tags=["lora", "qlora"]
    )
    name = " ".join(base.name.rsplit("/", 1)[-1].split())
    revision = f" at revision {code(base.commit)}" if base.commit else ""
    kind = base.quantization.kind if base.quantization else quantization.kind
    lora = training.lora
    text = (
        f"A LoRA adapter (r {lora.r}, alpha {lora.alpha:g}) for {code(base.name)}{revision}, trained on it "
        f"{'at full precision' if kind == 'none' else f'in {kind}'}. The tokenizer beside it has the chat template of "
        f"the training; {code('provenance.json')} has every parameter.\n\n{fenced(_loading(base), 'python')}"
    )
    if lora.initialization == "loftq":
        text += f"\n\nIt began as the rounding error of {kind} (LoftQ): it belongs to the base in {kind}, no other way."
    ModelCard(f"---\n{data.to_yaml()}\n---\n\n# LoRA adapter for {name}\n\n{text}\n").save(folder / "README.md")


def _loading(base: ModelLock) -> str:
    """The base from the hub is in the adapter's config, with its revision; another one is where the reader has it."""
    trusted = ", trust_remote_code=True" if base.trust_remote_code else ""
    if base.hub:
        load = f'model = AutoPeftModelForCausalLM.from_pretrained("path/of/this/folder"{trusted})'
        imports = "from peft import AutoPeftModelForCausalLM\nfrom transformers import AutoTokenizer"
    else:
        load = (
            f'base = AutoModelForCausalLM.from_pretrained("path/of/the/base"{trusted})\n'
            'model = PeftModel.from_pretrained(base, "path/of/this/folder")'
        )
        imports = "from peft import PeftModel\nfrom transformers import AutoModelForCausalLM, AutoTokenizer"
    return f'{imports}\n\n{load}\ntokenizer = AutoTokenizer.from_pretrained("path/of/this/folder")'
