"""A training shared by several processes: how they are started, what each takes, what they tell each other."""
