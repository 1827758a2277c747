"""What quantisation did to the base model."""

from steps.report import Report


class QuantizationReport(Report):
    """Sizes before and after, and how far the stored weights are from the originals."""

    model: str
    kind: str
    double_quantization: bool
    compute_dtype: str
    parameters: int
    quantized_parameters: int
    layers: int
    full_precision_bytes: int
    quantized_bytes: int
    relative_error: float
    seconds: float

    def metadata(self) -> dict[str, str | int | float | bool]:
        """Kind, sizes and error."""
        return {
            "kind": self.kind,
            "quantized_bytes": self.quantized_bytes,
            "compression": round(self.full_precision_bytes / self.quantized_bytes, 2),
            "relative_error": self.relative_error,
        }
