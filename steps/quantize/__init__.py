"""The base model in 4 bits, quantised once and loaded in seconds ever after."""
