"""How a model is stored: what its config.json says, and whether its weights are whole."""

from pathlib import Path
from typing import Literal

from steps.errors import ModelError
from steps.resolve.locks import StoredQuantization


def stored_quantization(config: dict[str, object], where: str) -> StoredQuantization | None:
    """How the model is quantised, None where it is at full precision.

    Args:
        config: its config.json.
        where: configuration key and model, for the error.

    Raises:
        ModelError: another method than bitsandbytes quantised it.
    """
    found = config.get("quantization_config")
    if not isinstance(found, dict):
        return None
    eight, four = found.get("load_in_8bit", False), found.get("load_in_4bit", False)
    method = found.get("quant_method") or ("bitsandbytes" if eight or four else "an unnamed method")  # as in 2023
    if method != "bitsandbytes":
        raise ModelError(
            f"{where} is quantised with {method}, which is not trained here; give the model that it was made from at "
            "full precision, or one that bitsandbytes quantised (nf4, fp4, int8)"
        )
    if eight:
        return StoredQuantization(kind="int8", double_quantization=False, compute_dtype="")
    kind: Literal["nf4", "fp4"] = "nf4" if found.get("bnb_4bit_quant_type") == "nf4" else "fp4"  # their default: fp4
    return StoredQuantization(
        kind=kind,
        double_quantization=bool(found.get("bnb_4bit_use_double_quant")),
        compute_dtype=str(found.get("bnb_4bit_compute_dtype") or "float32").removeprefix("torch."),
    )


def require_pinned_code(config: dict[str, object], where: str) -> None:
    """Raise :class:`ModelError` where trusted code lies in another repository, at whatever commit that has today."""
    found = config.get("auto_map")
    references = [str(value) for value in found.values()] if isinstance(found, dict) else []
    others = sorted({reference.split("--")[0] for reference in references if "--" in reference})
    if others:
        raise ModelError(
            f"{where} takes its code from {', '.join(others)}, which revision does not pin; give a repository that "
            "holds its own code"
        )


def require_whole(folder: Path) -> None:
    """Raise :class:`ModelError` where a .safetensors file is cut short, or a pointer of git-lfs to one."""
    from safetensors import SafetensorError, safe_open

    for path in sorted(folder.glob("*.safetensors")):
        try:
            with safe_open(path, framework="np"):
                pass
        except SafetensorError as error:
            raise ModelError(
                f"{path}: not a whole .safetensors file, {path.stat().st_size:,} bytes ({error}); copy or download it "
                "again (a clone without git-lfs has pointers in its place)"
            ) from error
