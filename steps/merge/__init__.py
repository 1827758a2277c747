"""The adapter merged into the full-precision base, reloaded, and shown to be what was evaluated."""
