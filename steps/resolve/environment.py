"""Code, library versions and hardware of a run, for its lineage."""

import os
import platform
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

from steps.fingerprint import ROOT
from steps.resolve.locks import Environment

LIBRARIES = (
    "torch",
    "transformers",
    "tokenizers",
    "peft",
    "trl",
    "bitsandbytes",
    "accelerate",
    "datasets",
    "great-expectations",
    "pandas",
    "zenml",
)


def describe_environment() -> Environment:
    """What this machine and checkout are now."""
    import psutil

    commit, dirty = _code()
    return Environment(
        code_commit=commit,
        code_dirty=dirty,
        python=sys.version.split()[0],
        libraries={name: version(name) for name in LIBRARIES},
        platform=platform.platform(),
        processor=_processor(),
        cores=os.cpu_count() or 1,
        memory_gb=round(psutil.virtual_memory().total / 1e9, 1),
        accelerators=_accelerators(),
    )


def _code() -> tuple[str, bool]:
    """Commit of the sources, and whether they were changed since; an image has its commit in a file, and no git."""
    commit = _git("rev-parse", "HEAD")
    if commit:
        return commit, bool(_git("status", "--porcelain", "--untracked-files=no"))
    try:
        commit, _, changed = (ROOT / ".commit").read_text(encoding="utf-8").strip().partition("-")
    except FileNotFoundError:
        return "", False
    return commit, bool(changed)


def _git(*arguments: str) -> str:
    command = ["git", "-C", str(ROOT), *arguments]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()  # noqa: S603 - fixed arguments
    except (OSError, subprocess.CalledProcessError):
        return ""  # no git, or not a checkout: an installed wheel has no commit


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.machine())


def _accelerators() -> list[str]:
    if not Path("/dev/nvidiactl").exists():
        return []  # spares a cached run the import of torch
    import torch

    return [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
