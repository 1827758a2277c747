"""Speed, peak memory and loss of training plans side by side on one GPU, each plan in its own process.

The work is the same for all: a random Llama-2-7B (32 layers, 4096 wide, 32,000 words) in NF4 with double quantisation,
LoRA r=64 alpha=16 on seven projections, packed blocks of 512 tokens, the loss on every token.

    PYTHONPATH=. python tests/benchmarks/gpu_training.py --plans "
        plain   fused=0 liger=1 micro=10
        norms   fused=1 recompute=norms micro=10 profile=1"

A line is a plan: a label, then what differs from the defaults of ``Plan``. Prints one JSON line a plan, then a table.
"""

import argparse
import dataclasses
import json
import random
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

BLOCK = 512
SHAPES = {
    "llama-2-7b": {"hidden_size": 4096, "intermediate_size": 11008, "num_hidden_layers": 32, "num_attention_heads": 32},
    "small": {"hidden_size": 512, "intermediate_size": 1536, "num_hidden_layers": 4, "num_attention_heads": 8},
    "tiny": {"hidden_size": 64, "intermediate_size": 192, "num_hidden_layers": 2, "num_attention_heads": 2},
}
WORDS = 32000
GRAPH = ("off", "all", "decoder", "nothing")
RECOMPUTE = ("nothing", "norms", "mlp")


@dataclass(frozen=True)
class Plan:
    """How the same work is done; a plan of the command line names what differs."""

    label: str = ""
    fused: int = 1  # our kernels; 0 is plain TRL and PEFT
    recompute: str = "norms"  # fused only: nothing, norms, mlp; of the layers that are kept
    recomputed_layers: int = 0  # fused only: the first decoder layers, recomputed as a whole
    held_layers: int = 0  # fused only: the first decoder layers, whose weights are dequantised once
    micro: int = 10  # blocks of a micro-batch
    accumulate: int = 1
    dropout: float = 0.0
    attention: str = "auto"
    checkpointing: int = 0  # plain only: transformers' own
    liger: int = 0  # plain only: liger's norm, rotary and SwiGLU
    optimizer: str = "adamw_torch_fused"
    graph: str = "off"  # captured as a CUDA graph: all, decoder (without head and loss), nothing (its code alone)
    log_every: int = 5  # 1 shows every loss, and waits for the GPU in every step
    profile: int = 0  # one step more, under torch.profiler


def parse_plan(line: str) -> Plan:
    """``label key=value ...`` as a plan; an unknown key is an error."""
    label, *settings = line.split()
    types: dict[str, Any] = {name: type(value) for name, value in dataclasses.asdict(Plan()).items()}
    values = dict(setting.split("=", 1) for setting in settings)
    unknown = values.keys() - types.keys()
    if unknown:
        raise SystemExit(f"plan {label}: unknown {', '.join(sorted(unknown))}; known: {', '.join(types)}")
    plan = Plan(label=label, **{name: types[name](value) for name, value in values.items()})
    if plan.graph not in GRAPH:
        raise SystemExit(f"plan {label}: graph is one of {', '.join(GRAPH)}")
    if plan.recompute not in RECOMPUTE:
        raise SystemExit(f"plan {label}: recompute is one of {', '.join(RECOMPUTE)}")
    return plan


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


def make_trainer(plan: Plan, model_folder: Path, steps: int) -> tuple[Any, str]:
    """TRL's trainer on the plan's model, fused where the plan says so, and what was fused."""
    import torch
    from datasets import Dataset
    from peft import LoraConfig
    from transformers import set_seed
    from trl.trainer.sft_config import SFTConfig
    from trl.trainer.sft_trainer import SFTTrainer

    from steps.quantize.device import describe_device
    from steps.quantize.load import load_quantized
    from steps.train.graph.capture import CapturedStep
    from steps.train.graph.training import CapturedTraining
    from steps.train.kernels.fuse import fuse
    from steps.train.params import SEVEN_PROJECTIONS
    from steps.train.plan import plan as steps_plan

    set_seed(42)  # before the adapter is made: its A matrices are random
    device = describe_device("bfloat16", plan.attention)
    on_cpu = device.kind == "cpu"
    config = SFTConfig(
        output_dir="/tmp/gpu-training",  # noqa: S108 - nothing is saved
        max_steps=steps + plan.profile,
        per_device_train_batch_size=plan.micro,
        gradient_accumulation_steps=plan.accumulate,
        gradient_checkpointing=bool(plan.checkpointing),
        gradient_checkpointing_kwargs={"use_reentrant": False} if plan.checkpointing else None,
        use_liger_kernel=bool(plan.liger),
        optim=plan.optimizer,
        learning_rate=2e-4,
        weight_decay=0.001,
        max_grad_norm=0.3,
        lr_scheduler_type="constant",
        bf16=True,
        use_cpu=on_cpu,
        dataloader_pin_memory=not on_cpu,
        dataloader_num_workers=0 if on_cpu else 2,
        accelerator_config={"non_blocking": bool(plan.fused) and not on_cpu},  # else each batch waits for the GPU
        save_strategy="no",
        logging_steps=plan.log_every,
        logging_nan_inf_filter=not plan.fused,  # it waits for the GPU in every step; our trainer goes without
        disable_tqdm=True,
        report_to="none",
        seed=42,
        max_length=None,
        padding_free=True,
        dataset_kwargs={"skip_prepare_dataset": True},
    )
    trainer = type("Trainer", (CapturedTraining, SFTTrainer), {})(
        model=load_quantized(model_folder, device),
        args=config,
        train_dataset=Dataset.from_list(list(blocks(plan.micro * plan.accumulate * (steps + 1)))),
        processing_class=tokenizer(),
        peft_config=LoraConfig(
            r=64,
            lora_alpha=16,
            lora_dropout=plan.dropout,
            target_modules=list(SEVEN_PROJECTIONS),
            task_type="CAUSAL_LM",
        ),
    )
    if not plan.fused:
        return trainer, "plain"
    chosen = steps_plan.Plan(plan.micro, plan.accumulate, plan.recomputed_layers, True, cast(Any, plan.recompute))
    fusion = fuse(trainer.model, dataclasses.replace(chosen, held_layers=plan.held_layers))
    if plan.graph != "off":
        autocast = torch.bfloat16 if config.bf16 else None
        sizes = {"tokens": plan.micro * BLOCK, "block": BLOCK}
        trainer.captured = CapturedStep(trainer.model, fusion, **sizes, autocast=autocast, part=cast(Any, plan.graph))
    return trainer, str(fusion)


def measure(plan: Plan, model_folder: Path, steps: int, warm_up: int) -> dict[str, Any]:
    """Train and report: tokens/s after the warm-up, peak GiB, logged losses."""
    import torch
    from gpu_clock import Clock  # type: ignore[import-not-found]  # beside this file, which runs as a script

    start = time.monotonic()
    trainer, fusion = make_trainer(plan, model_folder, steps)
    loaded = time.monotonic() - start
    clock = Clock(warm_up, steps, profiled=bool(plan.profile))
    trainer.add_callback(clock)
    gib = 2**30
    before = 0.0
    if torch.cuda.is_available():
        before = torch.cuda.memory_allocated() / gib
        torch.cuda.reset_peak_memory_stats()
    trainer.train()
    tokens = plan.micro * plan.accumulate * BLOCK
    result: dict[str, Any] = {
        **dataclasses.asdict(plan),
        "tokens_per_step": tokens,
        "tokens_per_second": round(tokens * (steps - warm_up) / clock.seconds),
        "step_ms": round(1000 * clock.seconds / (steps - warm_up), 1),
        "losses": [round(entry["loss"], 4) for entry in trainer.state.log_history if "loss" in entry],
        "fusion": fusion,
        "captured": str(trainer.captured),
        "capture_error": trainer.captured.error[-3000:] if trainer.captured else "",
        "load_seconds": round(loaded, 1),
        "device": torch.cuda.get_device_name(0) if torch.cuda.is_available() else "CPU",
    }
    if torch.cuda.is_available():
        result |= {
            "peak_gib": round(torch.cuda.max_memory_allocated() / gib, 2),
            "reserved_gib": round(torch.cuda.max_memory_reserved() / gib, 2),
            "before_gib": round(before, 2),
            "device_gib": round((torch.cuda.mem_get_info()[1] - torch.cuda.mem_get_info()[0]) / gib, 2),
        }
    if clock.kernels:
        result |= {"kernels": clock.kernels}
    return result


def table(results: list[dict[str, Any]]) -> str:
    """The results for reading; losses are held against those of the first plan."""
    lines = [f"{'plan':<28}{'tokens':>7}{'tok/s':>8}{'ms':>8}{'GiB':>7}{'reserved':>9}  last loss  largest difference"]
    first = results[0]["losses"] if results else []
    for result in results:
        losses = result["losses"]
        compared = ("tokens_per_step", "log_every")
        same = all(result[name] == results[0][name] for name in compared)
        off = f"{max(abs(a - b) for a, b in zip(losses, first, strict=False)):.4f}" if same and losses else "-"
        lines.append(
            f"{result['label']:<28}{result['tokens_per_step']:>7}{result['tokens_per_second']:>8,}"
            f"{result['step_ms']:>8.1f}{result.get('peak_gib', 0):>7.2f}{result.get('reserved_gib', 0):>9.2f}"
            f"{losses[-1] if losses else 0:>11.4f}  {off}"
        )
    return "\n".join(lines)


def run_all(arguments: argparse.Namespace) -> list[dict[str, Any]]:
    """Each plan in its own process; one that fails shows the end of its output and does not stop the others."""
    results = []
    for plan in [parse_plan(line) for line in arguments.plans.replace(";", "\n").splitlines() if line.strip()]:
        command = [sys.executable, "-W", "ignore", __file__, "--child", json.dumps(dataclasses.asdict(plan))]
        command += ["--steps", str(arguments.steps), "--warm-up", str(arguments.warm_up)]
        command += ["--folder", str(arguments.folder), "--shape", arguments.shape]
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=arguments.limit)
            output, error = done.stdout, done.stderr
        except subprocess.TimeoutExpired:
            output, error = "", f"longer than {arguments.limit} s"
        lines = [line for line in output.splitlines() if line.startswith("{")]
        if not lines:
            shown = arguments.error_characters
            print(f"FAILED {plan.label}\n{output[-2 * shown :]}\n{error[-shown:]}", flush=True)
            continue
        result = json.loads(lines[-1])
        results.append(result)
        print(
            json.dumps({name: value for name, value in result.items() if name not in ("kernels", "capture_error")}),
            flush=True,
        )
        print(result["capture_error"], end="", flush=True)
        for name, count, milliseconds in result.get("kernels", []):
            print(f"    {milliseconds:9.2f} ms  x{count:<6} {name[:120]}", flush=True)
    return results


def main() -> None:
    """Read the command line; print the table, and write all results where asked."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--plans", default="plain fused=0 liger=1\nfused", help="one plan a line (or between ;)")
    parser.add_argument("--steps", type=int, default=13, help="optimiser steps a plan")
    parser.add_argument("--warm-up", type=int, default=4, help="of them not counted")
    parser.add_argument("--folder", type=Path, default=Path("/tmp/benchmark-model"), help="where the model is kept")  # noqa: S108 - given by the user
    parser.add_argument("--shape", choices=list(SHAPES), default="llama-2-7b")
    parser.add_argument("--limit", type=int, default=150, help="seconds a plan may take")
    parser.add_argument("--error-characters", type=int, default=1500, help="shown of a plan that fails")
    parser.add_argument("--output", type=Path, help="JSON file for all results")
    parser.add_argument("--make", action="store_true", help="make the model, and no more")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    folder = arguments.folder / arguments.shape
    if arguments.child:
        plan = Plan(**json.loads(arguments.child))
        print(json.dumps(measure(plan, folder / "quantized", arguments.steps, arguments.warm_up)), flush=True)
        return
    if arguments.make:
        make_model(folder, arguments.shape)
        return
    # Also in a process of its own: what it leaves reserved on the GPU would be missing to the plans
    command = [sys.executable, "-W", "ignore", __file__, "--make", "--folder", str(arguments.folder)]
    subprocess.run([*command, "--shape", arguments.shape], check=True)
    results = run_all(arguments)
    print(table(results))
    if arguments.output:
        arguments.output.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
