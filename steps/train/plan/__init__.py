"""How a device carries out a training: which kernels, what is kept and what is made again, how a batch is cut."""
