"""Prompts, tokens and packed blocks: what the model sees in training and again when it is served."""
