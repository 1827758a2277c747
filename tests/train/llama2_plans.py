"""Plans measured at the Llama-2-7B shape, for the tests of the predictions (docs/performance.md)."""

from functools import cache
from typing import NamedTuple

from steps.device import choose
from steps.train.params import TrainingParameters
from steps.train.plan.cards import named_card
from steps.train.plan.job import Job
from steps.train.plan.plan import Plan, Recompute
from steps.train.plan.shape import ModelShape, shape_of

LAYERS = 32


@cache
def llama2() -> ModelShape:
    """The shape of Llama-2-7B."""
    from transformers import LlamaConfig

    return shape_of(
        LlamaConfig(
            vocab_size=32000,
            hidden_size=4096,
            intermediate_size=11008,
            num_hidden_layers=LAYERS,
            num_attention_heads=32,
        )
    )


class Measured(NamedTuple):
    """One row: peak allocated and reserved in GiB, tokens/s; None where it is not known."""

    name: str
    plan: Plan
    allocated: float
    reserved: float | None
    speed: int | None
    dropout: float = 0.0
    liger: bool = False
    flash: bool = True
    card: str = "h100"

    def job(self) -> Job:
        """Recipe and card of the measurement: r=64 on seven projections, packed blocks of 512."""
        device = choose(named_card(self.card).hardware(flash_attention=self.flash))
        training = TrainingParameters.model_validate(
            {
                "lora": {"dropout": self.dropout},
                "batch_size": self.plan.micro_batch,
                "gradient_accumulation": self.plan.accumulation,
            }
        )
        return Job(llama2(), training, device, 512, liger=self.liger)


def _fused(micro: int, accumulation: int, again: Recompute | None, *, captured: bool = True, held: int = 0) -> Plan:
    layers = LAYERS if again is None else 0
    return Plan(micro, accumulation, layers, True, again or "nothing", held, captured)


def _plain(micro: int, accumulation: int, *, again: bool) -> Plan:
    return Plan(micro, accumulation, LAYERS * again, fused=False)


FITTED = (
    Measured("layers, graph", _fused(10, 1, None), 6.6, 7.6, 13386),
    Measured("layers, graph, 2 x 5", _fused(2, 5, None), 5.55, 5.98, 11110),
    Measured("layers, graph, 1 x 10", _fused(1, 10, None), 5.54, 5.77, 8647),
    Measured("layers, graph, 24 blocks", _fused(24, 1, None), 9.7, 11.1, 14041),
    Measured("norms, graph", _fused(10, 1, "norms"), 19.29, 20.96, 19038),
    Measured("norms, graph, 5 x 2", _fused(5, 2, "norms"), 11.82, 13.49, 16986),
    Measured("norms, graph, 2 x 5", _fused(2, 5, "norms"), 7.38, 8.93, 14617),
    Measured("12 layers and gate and up, graph, 2 x 5", Plan(2, 5, 12, True, "mlp", 0, True), 5.58, 6.84, 12351),
    Measured("norms, graph, 40 blocks", _fused(40, 1, "norms"), 64.05, 68.63, 19812),
    Measured("nothing, graph", _fused(10, 1, "nothing"), 21.75, 23.57, 18719),
    Measured("nothing, graph, 20 x 2, weights held", _fused(20, 2, "nothing", held=LAYERS), 51.23, 54.41, 20244),
    Measured("mlp, graph", _fused(10, 1, "mlp"), 12.77, 14.24, 15541),
    Measured("norms, graph, dropout", _fused(10, 1, "norms"), 19.3, 22.1, 16294, dropout=0.05),
    Measured("nothing", _fused(10, 1, "nothing", captured=False), 22.3, 23.6, None),
    Measured("norms", _fused(10, 1, "norms", captured=False), 19.9, 21.1, 16906),
    Measured("mlp", _fused(10, 1, "mlp", captured=False), 13.3, 14.1, None),
    Measured("layers", _fused(10, 1, None, captured=False), 7.2, 7.7, None),
    Measured("norms, weights held", _fused(10, 1, "norms", captured=False, held=LAYERS), 31.8, 33.1, None),
    Measured("norms, 20 blocks", _fused(20, 1, "norms", captured=False), 34.7, 36.8, None),
    Measured("layers, 40 blocks", _fused(40, 1, None, captured=False), 13.8, 14.8, None),
    Measured("TRL + liger", _plain(10, 1, again=False), 25.3, 26.6, 12409, liger=True),
    Measured("TRL + liger, dropout", _plain(10, 1, again=False), 35.6, None, 12147, dropout=0.05, liger=True),
    Measured("TRL + liger, 20 blocks", _plain(20, 1, again=False), 45.6, None, 14680, liger=True),
    Measured("TRL + liger, 5 x 2", _plain(5, 2, again=False), 15.2, None, 7567, liger=True),
    Measured(
        "TRL + liger, sdpa, 5 x 2", _plain(5, 2, again=False), 20.8, None, 7655, dropout=0.05, liger=True, flash=False
    ),
    Measured("TRL + liger, layers", _plain(10, 1, again=True), 6.7, None, 8084, liger=True),
    Measured("TRL + liger, layers, 20 blocks", _plain(20, 1, again=True), 8.8, None, 10271, liger=True),
    Measured("TRL + liger, layers, 40 blocks", _plain(40, 1, again=True), 12.9, None, 10920, liger=True),
    Measured(
        "TRL + liger, sdpa, layers, 5 x 2",
        _plain(5, 2, again=True),
        6.1,
        None,
        4645,
        dropout=0.05,
        liger=True,
        flash=False,
    ),
    Measured("TRL, sdpa, layers, 5 x 2", _plain(5, 2, again=True), 6.3, None, 4062, dropout=0.05, flash=False),
)
"""10 blocks of 512 tokens an optimiser step where the name says nothing else. No speed: rows of a call in which the
ordinary step still waited for the copy of each batch. Captured plans but "norms, graph" and the held one are of a call
before our own attention."""

OTHER = tuple(
    row._replace(name=f"{row.name}, H200", card="h200")
    for row in (
        Measured("norms, graph", _fused(10, 1, "norms"), 19.29, 20.96, 19579),
        Measured("nothing, graph, 20 x 2, weights held", _fused(20, 2, "nothing", held=LAYERS), 51.23, 54.41, 20779),
        Measured("nothing, graph, 32 x 2, weights held", _fused(32, 2, "nothing", held=LAYERS), 72.02, 76.50, 20740),
        Measured("12 layers and gate and up, graph, 2 x 5", Plan(2, 5, 12, True, "mlp", 0, True), 5.57, 6.83, 13313),
        Measured("8 layers and norms, graph, 4 x 16", Plan(4, 16, 8, True, "norms", 0, True), 9.01, 10.46, 16781),
        Measured("14 layers and norms, graph, 5 x 2", Plan(5, 2, 14, True, "norms", 0, True), 8.95, 10.47, 16318),
        Measured(
            "1 layer and norms, graph, dropout", Plan(10, 1, 1, True, "norms", 0, True), 18.88, 21.51, 17740, 0.05
        ),
        Measured("TRL + liger", _plain(10, 1, again=False), 25.25, 26.55, 12905, liger=True),
    )
)
"""One H200, to which no constant of the predictions was fitted."""
ROWS = FITTED + OTHER
