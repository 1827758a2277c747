"""What is kept in ZenML: artifacts as Arrow, safetensors and JSON, never a pickle, and the stages of models."""
