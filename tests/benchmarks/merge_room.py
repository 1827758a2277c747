"""Time and memory of merging an adapter into a 7B-shaped checkpoint: ours, PEFT's, and copying the files.

Run by ``make bench``. Each side is a process of its own; the table goes to the standard output. The model has
Llama-2-7B's shape (13.5 GB) where 40 GB of disk and 32 GB of memory are free, else as many of its layers as 3 GB hold.
"""

import argparse
import json
import os
import shutil
import tempfile
from pathlib import Path
from typing import Any

import peft  # here and not in the sides: imports are not part of the measurement
import psutil
import torch
import transformers
from safetensors.torch import save_file

from steps.merge.stream import Merging, plan_merge
from steps.merge.tensors import INDEX, weight_files
from steps.merge.verify import changed_weights
from steps.train.params import SEVEN_PROJECTIONS
from tests.benchmarks.measure import measured
from tests.merge.bases import write_merged

LAYERS, LAYERS_OF_3_GB = 32, 6
RANK = 64
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


def write_checkpoint(folder: Path, config: transformers.LlamaConfig, shard_bytes: int) -> None:
    """A sharded bfloat16 Llama with random weights, never in memory as a whole."""
    with torch.device("meta"):
        model: Any = transformers.LlamaForCausalLM(config)
    config.architectures, config.dtype = ["LlamaForCausalLM"], "bfloat16"
    folder.mkdir(parents=True)
    config.save_pretrained(folder)
    shards: list[dict[str, torch.Size]] = [{}]
    size = 0
    for name, parameter in model.state_dict().items():
        if size + 2 * parameter.numel() > shard_bytes and shards[-1]:
            shards.append({})
            size = 0
        shards[-1][name] = parameter.shape
        size += 2 * parameter.numel()
    places = {}
    for number, shapes in enumerate(shards):
        name = f"model-{number + 1:05d}-of-{len(shards):05d}.safetensors"
        # a large weight repeats some million random numbers: making more would take longer than the merge
        weights = {key: _random(shape) for key, shape in shapes.items()}
        save_file(weights, folder / name, metadata={"format": "pt"})
        places.update(dict.fromkeys(shapes, name))
    (folder / INDEX).write_text(json.dumps({"metadata": {}, "weight_map": places}))


def _random(shape: torch.Size) -> torch.Tensor:
    count = shape.numel()
    few = (torch.randn(min(count, 2**22)) * 0.02).bfloat16()
    return few.repeat(-(-count // len(few)))[:count].reshape(shape).contiguous()


def write_adapter(folder: Path, config: transformers.LlamaConfig, rank: int) -> None:
    """A random LoRA adapter on the seven projections."""
    with torch.device("meta"):
        model: Any = transformers.LlamaForCausalLM(config)
    peft.LoraConfig(
        r=rank, lora_alpha=16, target_modules=list(SEVEN_PROJECTIONS), task_type="CAUSAL_LM"
    ).save_pretrained(str(folder))
    weights = {}
    for name, module in model.named_modules():
        if name.rsplit(".", 1)[-1] in SEVEN_PROJECTIONS:
            prefix = f"base_model.model.{name}"
            weights[f"{prefix}.lora_A.weight"] = torch.randn(rank, module.in_features) * 0.02
            weights[f"{prefix}.lora_B.weight"] = torch.randn(module.out_features, rank) * 0.02
    save_file(weights, folder / "adapter_model.safetensors", metadata={"format": "pt"})


def copied(folder: Path) -> dict[str, int]:
    """The files copied, nothing else: the least that any merge must do."""
    (folder / "merged").mkdir()
    for path in weight_files(folder / "base"):
        shutil.copyfile(path, folder / "merged" / path.name)
    return {}


def merged(folder: Path) -> dict[str, int]:
    """Ours without the proof."""
    write_merged(plan_merge(folder / "base", [folder / "adapter"]), folder / "base", folder / "merged", DEVICE)
    return {}


def proved(folder: Path) -> dict[str, int]:
    """Ours with the proof that the targeted weights changed and no other did, read back from disk."""
    return proof(folder, plan_merge(folder / "base", [folder / "adapter"]))


def proof(folder: Path, plan: Merging) -> dict[str, int]:
    """The merge of a plan, and how many weights it changed."""
    output = write_merged(plan, folder / "base", folder / "merged", DEVICE)
    changed, unchanged = changed_weights(folder / "base", output, plan, DEVICE)
    return {"changed": changed, "unchanged": unchanged}


def by_peft(folder: Path) -> dict[str, int]:
    """What a script would do."""
    base: Any = transformers.AutoModelForCausalLM.from_pretrained(folder / "base", dtype="auto", device_map=DEVICE)
    tuned = peft.PeftModel.from_pretrained(base, str(folder / "adapter"))
    model: Any = tuned.merge_and_unload()
    model.save_pretrained(folder / "merged", max_shard_size="1GB")
    return {}


SIDES = {"copying the files": copied, "ours": merged, "ours, proved": proved, "PEFT": by_peft}


def main() -> None:
    """Measure every side and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--layers", type=int, help=f"of the model; all of Llama-2-7B are {LAYERS}")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        roomy = shutil.disk_usage(folder).free >= 40e9 and psutil.virtual_memory().available >= 32e9
        layers = arguments.layers or (LAYERS if roomy else LAYERS_OF_3_GB)
        config = transformers.LlamaConfig(num_hidden_layers=layers)  # its other defaults are Llama-2-7B's
        write_checkpoint(folder / "base", config, 10**9)
        write_adapter(folder / "adapter", config, RANK)
        files = weight_files(folder / "base")
        print(f"{layers} layers, {sum(path.stat().st_size for path in files) / 1e9:.1f} GB in {len(files)} shards\n")
        print(f"{'':<18} {'seconds':>8} {'MB':>8}", flush=True)
        for side, work in SIDES.items():
            os.sync()  # what the last side wrote is not this one's to wait for
            counts, seconds, gib = measured(work, folder)
            print(f"{side:<18} {seconds:>8.1f} {gib * 2**30 / 1e6:>8,.0f}  {counts or ''}", flush=True)
            shutil.rmtree(folder / "merged")


if __name__ == "__main__":
    main()
