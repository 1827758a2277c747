"""Whether the tuned model is better than its base, and the stage that it gets."""
