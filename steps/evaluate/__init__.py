"""Base against tuned on the same prompts: loss, and what the generated answers are worth."""
