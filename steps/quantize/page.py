"""The page of the quantisation."""

from steps.page import Page, Section, Table, Tile
from steps.quantize.report import QuantizationReport

TITLES = {
    "nf4": "{model} in NF4",
    "fp4": "{model} in FP4",
    "int8": "{model} in LLM.int8()",
    "none": "{model}, not quantised",
}


def draw(report: QuantizationReport) -> Page:
    """Sizes first, then what was done."""
    error = "not known" if report.relative_error is None else f"{report.relative_error:.1%}"
    note = "the originals are not there" if report.relative_error is None else "root mean square, relative"
    ratio = report.full_precision_bytes / report.quantized_bytes
    smaller = "as it was" if report.kind == "none" else f"{ratio:.1f} times smaller"
    full = "bytes in 16 bits" if report.came_quantized else "bytes at full precision"
    return Page(
        title=TITLES[report.kind].format(model=report.model),
        lead=_lead(report),
        tiles=[
            Tile("Stored size", f"{report.quantized_bytes / 1e6:,.0f} MB", smaller),
            Tile("Quantised layers", f"{report.layers:,}"),
            Tile("Weight error", error, note),
            Tile("Time", f"{report.seconds:.1f} s"),
        ],
        sections=[
            Section(
                "What is stored",
                table=Table(
                    ["figure", "value"],
                    [
                        ["parameters", f"{report.parameters:,}"],
                        ["of them quantised", f"{report.quantized_parameters:,}"],
                        [full, f"{report.full_precision_bytes:,}"],
                        ["bytes stored", f"{report.quantized_bytes:,}"],
                        ["type of the arithmetic", report.compute_dtype],
                    ],
                ),
            )
        ],
    )


def _lead(report: QuantizationReport) -> str:
    if report.kind == "none":
        return "Plain LoRA: every layer is as it was."
    four = f"4 bits, {'with' if report.double_quantization else 'without'} double quantisation"
    bits = "8 bits" if report.kind == "int8" else four
    came = "The model came quantised and was copied as it is. " if report.came_quantized else ""
    return f"{came}Linear layers in {bits}; all else as it was."
