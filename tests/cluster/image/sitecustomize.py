"""What a container gives a process and a bare process lacks: its pod's name as host name, and its folder ``/app``.

Python imports this by itself where the folder is on ``PYTHONPATH``. Namespaces would give both for real, but not every
machine lets a test have them.
"""

import os
import socket
from typing import Any

POD, PROJECT = os.environ["POD_NAME"], os.environ["PROJECT"]
make, change = os.makedirs, os.chdir


def inside(path: Any) -> Any:
    """The container's ``/app`` is the project's folder."""
    return PROJECT if path == "/app" else path


socket.gethostname = lambda: POD
os.makedirs = lambda name, *args, **kwargs: make(inside(name), *args, **kwargs)
os.chdir = lambda path: change(inside(path))
