"""LoRA on the quantised model with TRL's SFTTrainer."""
