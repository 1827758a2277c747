"""What makes a training on a processor faster: ``faster.py`` puts it into a loaded model, the rest is arithmetic."""
