"""Which file keeps the answers of which work: named after everything that decides them but the prompts.

The tuned model's file goes when the evaluation's report is stored. The base model's and production's stay as a cache.
"""

from dataclasses import dataclass
from pathlib import Path

from steps.device import describe_device
from steps.evaluate import generate
from steps.evaluate.inference import Side
from steps.files import digest_of, hashes
from steps.fingerprint import fingerprint

LIBRARIES = ("torch", "transformers", "peft", "bitsandbytes", "tokenizers")
NOT_DECISIVE = "provenance.json"


@dataclass(frozen=True)
class KeptAnswers:
    """Where the answers of each side of one evaluation lie."""

    base: Path
    tuned: Path
    production: Path | None = None

    def forget_tuned(self) -> None:
        """Remove what nobody will ask for again once the report is stored."""
        self.tuned.unlink(missing_ok=True)


def kept_answers(
    folder: str | None,
    model_folder: Path,
    adapter_folder: Path,
    tokenizer_folder: Path,
    max_new_tokens: int,
    production: tuple[Path, Path, Path] | None = None,
) -> KeptAnswers:
    """The files of exactly this work: other weights, tokenizer, decoding, precision, code or libraries have their own.

    The attention kernel and the name of the device do not count, nor does the batch: they change answers only where
    two tokens are tied within rounding.

    Args:
        folder: the folder of checkpoints, null for the user's cache folder; answers lie in it under ``evaluations``.
        model_folder: the 4-bit model.
        adapter_folder: the adapter, of the tuned side alone.
        tokenizer_folder: the tokenizer.
        max_new_tokens: tokens after which an answer is cut.
        production: the same three folders of the version in production, if its model is asked too.
    """
    from platformdirs import user_cache_path

    root = Path(folder) if folder else user_cache_path("qlora-pipeline")
    device = describe_device()
    code = fingerprint(str(generate.__file__), *LIBRARIES)

    def file(side: Side, model: Path, tokenizer: Path, *adapter: Path) -> Path:
        shared = [_files(model), _files(tokenizer), max_new_tokens, device.kind, device.precision, code]
        return root / "evaluations" / f"{side}-{_digest([*shared, *map(_files, adapter)])}.jsonl"

    return KeptAnswers(
        base=file("base", model_folder, tokenizer_folder),
        tuned=file("tuned", model_folder, tokenizer_folder, adapter_folder),
        production=file("production", production[0], production[2], production[1]) if production else None,
    )


def _files(folder: Path) -> dict[str, str]:
    return {name: digest for name, digest in hashes(folder).items() if name != NOT_DECISIVE}


def _digest(values: list[object]) -> str:
    return digest_of(values)[:32]
