"""What exactly a run uses: data revision, base model revision, tokenizer files, code and versions."""
