"""The page of the quantisation."""

from steps.page import Page, Section, Table, Tile
from steps.quantize.report import QuantizationReport


def draw(report: QuantizationReport) -> Page:
    """Sizes first, then what was done."""
    ratio = report.full_precision_bytes / report.quantized_bytes
    double = "with" if report.double_quantization else "without"
    return Page(
        title=f"{report.model} in {report.kind.upper()}",
        lead=f"Linear layers in 4 bits, {double} double quantisation; all else as it was.",
        tiles=[
            Tile("Stored size", f"{report.quantized_bytes / 1e6:,.0f} MB", f"{ratio:.1f} times smaller"),
            Tile("4-bit layers", f"{report.layers:,}"),
            Tile("Weight error", f"{report.relative_error:.1%}", "root mean square, relative"),
            Tile("Time", f"{report.seconds:.1f} s"),
        ],
        sections=[
            Section(
                "What is stored",
                table=Table(
                    ["figure", "value"],
                    [
                        ["parameters", f"{report.parameters:,}"],
                        ["of them in 4 bits", f"{report.quantized_parameters:,}"],
                        ["bytes at full precision", f"{report.full_precision_bytes:,}"],
                        ["bytes stored", f"{report.quantized_bytes:,}"],
                        ["type of the arithmetic", report.compute_dtype],
                    ],
                ),
            )
        ],
    )
