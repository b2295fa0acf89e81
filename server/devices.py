"""Cards and computers that people have, with their memory. Kept by hand: makers' data sheets, November 2026."""

from dataclasses import dataclass

from analysis.memory import GIB

USABLE = 0.9
"""Part of a card's memory that an engine may take: vLLM's `gpu_memory_utilization`. The rest is the driver's."""
USABLE_RAM = 0.7
"""Part of a computer's memory that its system and other programs leave."""
WITHOUT_INT8 = ("blackwell",)
"""vLLM has int8 kernels for activations and weights from Turing to Hopper (0.32)."""
ONLY_16 = ("volta",)
"""Too old for the kernels of 8 and 4 bit."""

CONSUMER, DATACENTER, COMPUTER = "consumer", "data centre", "computer"


@dataclass(frozen=True)
class Device:
    """Something that a model can run on."""

    name: str
    gibibytes: int
    kind: str
    generation: str = ""

    @property
    def usable_bytes(self) -> float:
        """What is left for a model."""
        return self.gibibytes * GIB * (USABLE_RAM if self.kind == COMPUTER else USABLE)

    def runs(self, bits: int) -> bool:
        """Whether engines have kernels for the precision on it."""
        if bits == 16 or self.kind == COMPUTER:
            return True
        return self.generation not in (ONLY_16 if bits == 4 else ONLY_16 + WITHOUT_INT8)


DEVICES = (
    Device("RTX 3050", 8, CONSUMER, "ampere"),
    Device("RTX 4060", 8, CONSUMER, "ada"),
    Device("RTX 3080", 10, CONSUMER, "ampere"),
    Device("RTX 3060", 12, CONSUMER, "ampere"),
    Device("RTX 4070", 12, CONSUMER, "ada"),
    Device("RTX 4060 Ti", 16, CONSUMER, "ada"),
    Device("RTX 4080", 16, CONSUMER, "ada"),
    Device("RTX 5060 Ti", 16, CONSUMER, "blackwell"),
    Device("RTX 5080", 16, CONSUMER, "blackwell"),
    Device("RTX 3090", 24, CONSUMER, "ampere"),
    Device("RTX 4090", 24, CONSUMER, "ada"),
    Device("RTX 5090", 32, CONSUMER, "blackwell"),
    Device("T4", 16, DATACENTER, "turing"),
    Device("A10", 24, DATACENTER, "ampere"),
    Device("L4", 24, DATACENTER, "ada"),
    Device("V100", 32, DATACENTER, "volta"),
    Device("A100", 40, DATACENTER, "ampere"),
    Device("A40", 48, DATACENTER, "ampere"),
    Device("L40S", 48, DATACENTER, "ada"),
    Device("A100", 80, DATACENTER, "ampere"),
    Device("H100", 80, DATACENTER, "hopper"),
    Device("H20", 96, DATACENTER, "hopper"),
    Device("RTX PRO 6000", 96, DATACENTER, "blackwell"),
    Device("H200", 141, DATACENTER, "hopper"),
    Device("B200", 180, DATACENTER, "blackwell"),
    Device("RAM", 8, COMPUTER),
    Device("RAM", 16, COMPUTER),
    Device("RAM", 32, COMPUTER),
    Device("RAM", 64, COMPUTER),
    Device("RAM", 128, COMPUTER),
    Device("RAM", 256, COMPUTER),
)


def fitting(kind: str, bits: int, num_bytes: float) -> list[Device]:
    """The devices of a kind on which so many bytes fit, the smallest first."""
    found = (device for device in DEVICES if device.kind == kind and device.runs(bits))
    return sorted((device for device in found if device.usable_bytes >= num_bytes), key=lambda one: one.gibibytes)
