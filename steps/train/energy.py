"""The energy that an NVIDIA GPU has used, from the driver's own counter."""

import ctypes
from collections.abc import Callable

import torch

LIBRARY = "libnvidia-ml.so.1"
"""NVML, which comes with the driver: docs.nvidia.com/deploy/nvml-api."""


def energy_counter() -> Callable[[], float] | None:
    """Reads joules since the driver was loaded; None where the GPU or its driver doesn't tell.

    ``nvmlDeviceGetTotalEnergyConsumption`` counts the whole card, from the Volta generation on. torch asks for the
    power alone, and needs the package nvidia-ml-py for it.
    """
    try:
        nvml = ctypes.CDLL(LIBRARY)
    except OSError:
        return None
    identity = f"GPU-{torch.cuda.get_device_properties(0).uuid}".encode()  # indices differ with CUDA_VISIBLE_DEVICES
    device, millijoules = ctypes.c_void_p(), ctypes.c_ulonglong()

    def tells() -> bool:
        return not nvml.nvmlDeviceGetTotalEnergyConsumption(device, ctypes.byref(millijoules))

    if nvml.nvmlInit_v2() or nvml.nvmlDeviceGetHandleByUUID(identity, ctypes.byref(device)) or not tells():
        return None

    def joules() -> float:
        tells()
        return millijoules.value / 1000

    return joules
