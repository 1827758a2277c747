"""One table of NVIDIA cards: what a plan can count on where the card itself is not there."""

import re
from dataclasses import dataclass

from steps.device import Hardware
from steps.errors import DeviceError

GIB = 2**30


@dataclass(frozen=True)
class Card:
    """One kind of card.

    Sources: ``flops`` and ``bandwidth`` from NVIDIA's data sheet of each data-centre card (where it states FLOP/s with
    sparsity, half of it: L4, L40, L40S, H100, H200); for GeForce the white papers of GA102, Ada and Blackwell, appendix
    A. FLOP/s are the boost clock's, not what a card holds under its power limit. ``memory_gib`` is the total capacity
    that PyTorch names in its error when a card's memory is used up: the driver keeps the rest of the nominal figure.
    ``capability`` from NVIDIA's list of CUDA GPUs.
    """

    cuda_name: str
    short: str  # what a person types
    memory_gib: float
    bandwidth: float  # bytes/s
    flops: float  # FLOP/s of dense float16 or bfloat16 products summed in float32
    capability: tuple[int, int]

    def hardware(self, *, flash_attention: bool) -> Hardware:
        """The card as a machine has it."""
        return Hardware(
            kind="cuda",
            name=self.cuda_name,
            memory_bytes=int(self.memory_gib * GIB),
            capability=self.capability,
            flash_attention_installed=flash_attention,
        )


H100_SXM, H100_PCIE, H100_NVL = 989.4e12, 756e12, 835e12
VOLTA, TURING, AMPERE, AMPERE_GRAPHICS, ADA, HOPPER, BLACKWELL = (7, 0), (7, 5), (8, 0), (8, 6), (8, 9), (9, 0), (12, 0)

CARDS = (
    Card("Tesla V100-SXM2-16GB", "v100", 15.77, 900e9, 125e12, VOLTA),
    Card("Tesla V100-SXM2-32GB", "v100-32gb", 31.73, 900e9, 125e12, VOLTA),
    Card("Tesla V100-PCIE-16GB", "v100-pcie", 15.77, 900e9, 112e12, VOLTA),
    Card("Tesla V100-PCIE-32GB", "v100-pcie-32gb", 31.73, 900e9, 112e12, VOLTA),
    Card("Tesla T4", "t4", 14.56, 320e9, 65e12, TURING),
    Card("NVIDIA A10", "a10", 22.06, 600e9, 125e12, AMPERE_GRAPHICS),
    Card("NVIDIA A10G", "a10g", 22.06, 600e9, 70e12, AMPERE_GRAPHICS),
    Card("NVIDIA A30", "a30", 23.50, 933e9, 165e12, AMPERE),
    Card("NVIDIA A40", "a40", 44.35, 696e9, 149.7e12, AMPERE_GRAPHICS),
    Card("NVIDIA A100-SXM4-40GB", "a100-40gb", 39.39, 1555e9, 312e12, AMPERE),
    Card("NVIDIA A100-SXM4-80GB", "a100", 79.15, 2039e9, 312e12, AMPERE),
    Card("NVIDIA A100-PCIE-40GB", "a100-pcie-40gb", 39.39, 1555e9, 312e12, AMPERE),
    Card("NVIDIA A100 80GB PCIe", "a100-pcie", 79.15, 1935e9, 312e12, AMPERE),
    Card("NVIDIA L4", "l4", 22.03, 300e9, 121e12, ADA),
    Card("NVIDIA L40", "l40", 44.39, 864e9, 181e12, ADA),
    Card("NVIDIA L40S", "l40s", 44.39, 864e9, 362e12, ADA),
    Card("NVIDIA H100 80GB HBM3", "h100", 79.11, 3350e9, H100_SXM, HOPPER),
    Card("NVIDIA H100 PCIe", "h100-pcie", 79.11, 2000e9, H100_PCIE, HOPPER),
    Card("NVIDIA H100 NVL", "h100-nvl", 93.10, 3900e9, H100_NVL, HOPPER),
    Card("NVIDIA H200", "h200", 139.80, 4800e9, H100_SXM, HOPPER),
    Card("NVIDIA H200 NVL", "h200-nvl", 139.80, 4800e9, H100_NVL, HOPPER),
    Card("NVIDIA GeForce RTX 3080", "rtx3080", 9.77, 760e9, 59.5e12, AMPERE_GRAPHICS),
    Card("NVIDIA GeForce RTX 3090", "rtx3090", 23.69, 936e9, 71e12, AMPERE_GRAPHICS),
    Card("NVIDIA GeForce RTX 4090", "rtx4090", 23.64, 1008e9, 165.2e12, ADA),
    Card("NVIDIA GeForce RTX 5090", "rtx5090", 31.36, 1792e9, 209.5e12, BLACKWELL),
)
"""A10G: a variant of the A10 in Amazon's g5 machines; its FLOP/s from its own data sheet, dense."""

TYPICAL = next(card for card in CARDS if card.short == "a100")
"""By whose ratio of FLOP/s to bandwidth plans are put in order where the card is not known."""


def card_of(cuda_name: str) -> Card | None:
    """The card that CUDA calls so, or None."""
    return next((card for card in CARDS if card.cuda_name == cuda_name), None)


def named_card(name: str) -> Card:
    """The card that a person means: ``rtx4090``, ``RTX 4090``, ``h100`` or CUDA's own name.

    Raises:
        DeviceError: no card is called so.
    """
    wanted = _plain(name)
    for card in CARDS:
        if wanted in (_plain(card.short), _plain(card.cuda_name)):
            return card
    raise DeviceError(f"--gpu {name} is not in the table of cards; known are {', '.join(c.short for c in CARDS)}")


def _plain(name: str) -> str:
    return re.sub(r"nvidia|geforce|tesla|[^a-z0-9]", "", name.lower())
