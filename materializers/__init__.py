"""How each type of artifact is stored: Arrow, safetensors and JSON, never a pickle."""
