"""Greedy answers to every prompt: those of an interrupted evaluation are taken up, samples are shown meanwhile."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from datasets import Dataset

from steps.evaluate.decode import Decoding, decode
from steps.evaluate.inference import Side, inference

if TYPE_CHECKING:
    from peft import PeftModel
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from steps.evaluate.kept import AnswerFile

SAMPLE_SECONDS = 20.0
"""Between two answers that are shown while the others are being written; the first one is always shown."""

SHOWN_WORDS = 8
SHOWN_CHARACTERS = 60


@dataclass(frozen=True)
class Answer:
    """What a model wrote, and whether it ended by itself or was cut."""

    text: str
    stopped: bool
    tokens: int


def generate_answers(
    model: "PreTrainedModel | PeftModel",
    tokenizer: "PreTrainedTokenizerBase",
    examples: Dataset,
    max_new_tokens: int,
    batch_size: int,
    side: Side,
    kept: "AnswerFile | None" = None,
) -> list[Answer]:
    """Greedy answers to every row's prompt, in the order of ``examples``.

    Args:
        model: the model of that side.
        tokenizer: the trained tokenizer.
        examples: columns ``prompt_ids`` and ``instruction``; where there is a ``prefix``, whose tokens end
            ``prompt_ids``, an answer begins with it.
        max_new_tokens: tokens after which an answer is cut.
        batch_size: prompts answered together.
        side: which model it is, for the progress line.
        kept: answers that are there already, and where new ones are written as they come.
    """
    prompts: list[list[int]] = examples["prompt_ids"][:]
    prefixes: Sequence[str] = examples["prefix"][:] if "prefix" in examples.column_names else [""] * len(prompts)
    found = {index: answer for index, ids in enumerate(prompts) if kept and (answer := kept.get(ids))}
    missing = [index for index in range(len(prompts)) if index not in found]
    if found:
        print(f"  answers, {side}: {len(found)} of {len(prompts)} are there from before", flush=True)
    decoding = Decoding(int(tokenizer.eos_token_id), int(tokenizer.pad_token_id), max_new_tokens, batch_size)
    total, written, shown = max_new_tokens * len(missing), 0, float("-inf")
    with inference(model, "tokens", total, side) as progress:

        def advance(tokens: int) -> None:
            nonlocal written
            written += tokens
            if written < total or len(found) == len(prompts):
                progress.advance(written, f"{len(found)} of {len(prompts)} answered")

        for position, tokens in decode(model, [prompts[index] for index in missing], decoding, advance):
            index = missing[position]
            found[index] = answer_of(tokens, tokenizer, prefixes[index])
            if kept:
                kept.add(prompts[index], found[index])
            advance(max_new_tokens - len(tokens))  # what it did not need counts as done
            if time.monotonic() - shown > SAMPLE_SECONDS:
                shown = time.monotonic()
                progress.say(_sample(examples[index]["instruction"], found[index]))
    return [found[index] for index in range(len(prompts))]


def answer_of(tokens: list[int], tokenizer: "PreTrainedTokenizerBase", prefix: str = "") -> Answer:
    """The answer that the tokens spell, without the end token.

    Some templates, Llama-2's for one, put a space before an answer: it belongs to the format, not to the code.
    """
    stopped = tokens[-1] == tokenizer.eos_token_id
    kept = tokens[:-1] if stopped else tokens
    text = str(tokenizer.decode(kept, skip_special_tokens=True))
    return Answer(text=prefix + text.rstrip() if prefix else text.strip(), stopped=stopped, tokens=len(kept))


def _sample(instruction: str, answer: Answer) -> str:
    asked = instruction.split()
    question = " ".join(asked[:SHOWN_WORDS]) + (" ..." if len(asked) > SHOWN_WORDS else "")
    first = answer.text.partition("\n")[0]
    return f"    {question[:SHOWN_CHARACTERS]} -> {first[:SHOWN_CHARACTERS] or '(nothing)'}"
