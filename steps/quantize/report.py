"""What quantisation did to the base model."""

from steps.report import Report


class QuantizationReport(Report):
    """Sizes before and after, and how far the stored weights are from the originals."""

    model: str
    kind: str
    double_quantization: bool
    came_quantized: bool  # by whoever published the model; it was copied as it is
    compute_dtype: str
    parameters: int
    quantized_parameters: int
    layers: int
    full_precision_bytes: int  # in 16 bits, where the model came quantised
    quantized_bytes: int
    relative_error: float | None  # None where the originals are not there
    seconds: float

    def metadata(self) -> dict[str, str | int | float | bool]:
        """Kind, sizes and error."""
        values: dict[str, str | int | float | bool] = {
            "kind": self.kind,
            "quantized_bytes": self.quantized_bytes,
            "compression": round(self.full_precision_bytes / self.quantized_bytes, 2),
        }
        if self.relative_error is not None:
            values["relative_error"] = self.relative_error
        return values
