"""One micro-batch's forward and backward pass, captured once as a CUDA graph and replayed without the host's work."""
