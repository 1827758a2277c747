"""What two models say of the same rows, and how far it is apart."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from datasets import Dataset

from steps.evaluate.answer import answer_of
from steps.evaluate.decode import Decoding, decode
from steps.merge.report import Differences
from steps.progress import Progress

if TYPE_CHECKING:
    import torch
    from peft import PeftModel
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


@dataclass(frozen=True)
class Outputs:
    """Logits (tokens x vocabulary) at every completion token of each row, in a file for each, and those tokens."""

    files: list[Path]
    targets: list[list[int]]

    def __iter__(self) -> "Iterator[tuple[torch.Tensor, torch.Tensor]]":
        """Logits in float32 and target tokens, one row at a time."""
        import torch
        from safetensors.torch import load_file

        for path, targets in zip(self.files, self.targets, strict=True):
            yield load_file(path)["logits"].float(), torch.tensor(targets)


def outputs(model: "PreTrainedModel | PeftModel", rows: Dataset, folder: Path) -> Outputs:
    """What the model says of the rows, one at a time and unpadded; kept in ``folder``, since all are large."""
    import torch
    from safetensors.torch import save_file

    model.eval()
    folder.mkdir()
    files = []
    for number, row in enumerate(rows):
        start, ids = len(row["prompt_ids"]), [*row["prompt_ids"], *row["completion_ids"]]
        with torch.inference_mode():
            logits = model(input_ids=torch.tensor([ids], device=model.device)).logits[0, start - 1 : -1]
        files.append(folder / f"{number}.safetensors")
        save_file({"logits": logits.cpu().contiguous()}, files[-1])
    return Outputs(files, list(rows["completion_ids"]))


def answers(
    model: "PreTrainedModel | PeftModel",
    tokenizer: "PreTrainedTokenizerBase",
    rows: Dataset,
    max_new_tokens: int,
    whose: str,
) -> list[str]:
    """Greedy answers to the rows' prompts, all in one batch; ``whose`` they are is for the progress line."""
    import torch

    prompts: list[list[int]] = rows["prompt_ids"][:]
    decoding = Decoding(int(tokenizer.eos_token_id), int(tokenizer.pad_token_id), max_new_tokens, len(prompts))
    found: dict[int, str] = {}
    model.eval()
    with torch.inference_mode(), Progress(f"answers, {whose}", len(prompts)) as progress:
        for index, tokens in decode(model, prompts, decoding, lambda _: None):
            found[index] = answer_of(tokens, tokenizer).text
            progress.advance(len(found))
    return [found[index] for index in range(len(prompts))]


def compare(expected: Outputs, found: Outputs) -> Differences:
    """How far ``found`` is from ``expected``, over all tokens of all rows."""
    import torch
    from torch.nn.functional import cross_entropy, kl_div, log_softmax

    largest, sums, positions = 0.0, torch.zeros(5, dtype=torch.float64), 0
    for (one, targets), (other, _) in zip(expected, found, strict=True):
        gap = (one - other).abs()
        largest = max(largest, float(gap.max())) if gap.isfinite().all() else float("inf")
        divergence = kl_div(log_softmax(other, -1), log_softmax(one, -1), reduction="sum", log_target=True)
        losses = [cross_entropy(logits, targets, reduction="sum") for logits in (one, other)]
        same = (one.argmax(-1) == other.argmax(-1)).sum()
        sums += torch.stack([gap.mean(-1).sum(), divergence, same, *losses])
        positions += len(targets)
    mean_gap, divergence, same, expected_loss, loss = (sums / positions).tolist()
    return Differences(
        positions=positions,
        max_logit_difference=largest,
        mean_logit_difference=mean_gap,
        kl_divergence=divergence,
        top1_agreement=same,
        expected_loss=expected_loss,
        loss=loss,
    )


def differing(expected: Sequence[str], found: Sequence[str]) -> list[int]:
    """Positions at which the answers are not the same text."""
    return [index for index, (one, other) in enumerate(zip(expected, found, strict=True)) if one != other]
