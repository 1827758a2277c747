"""Fused training of "4-bit weight + LoRA": ``fuse.py`` puts it into a loaded model, the rest is arithmetic."""
