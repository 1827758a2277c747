"""An evaluation shared by several processes: what each is dealt, how it is told, what becomes of the results."""
