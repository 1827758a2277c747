"""Environment variables by which a launch tells its processes more than torchrun would."""

PARENT = "QLORA_PARENT"
"""Process whose end is this one's too."""

ATTEMPT = "QLORA_ATTEMPT"
"""Which start of the processes this is."""
