"""The machines that share some work."""

import os
from dataclasses import dataclass
from pathlib import Path

from steps.errors import ConfigError

FOLDER = "QLORA_SHARED_FOLDER"
"""Folder that all machines see at the same path, for one run."""

NEEDED = ("NODE_RANK", "MASTER_ADDR", "MASTER_PORT", FOLDER)


@dataclass(frozen=True)
class Machine:
    """This machine among those that share the work, by torchrun's environment variables."""

    number: int = 0
    count: int = 1
    address: str = "127.0.0.1"  # of machine 0
    port: int = 0  # there; 0: any that is free
    folder: Path | None = None  # that all see; none where there is one machine

    @classmethod
    def here(cls) -> "Machine":
        """NNODES, NODE_RANK, MASTER_ADDR, MASTER_PORT and QLORA_SHARED_FOLDER; without NNODES there is one machine.

        Raises:
            ConfigError: some are set and others are not.
        """
        count = int(os.environ.get("NNODES", "1"))
        if count == 1:
            return cls()
        missing = [name for name in NEEDED if name not in os.environ]
        if missing:
            raise ConfigError(f"NNODES is {count}, and {', '.join(missing)} is not set; set it on every machine")
        place = (os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"]), Path(os.environ[FOLDER]))
        return cls(int(os.environ["NODE_RANK"]), count, *place)
