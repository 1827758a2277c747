"""Train, validation and test: no duplicate, no leak, and a row stays on its side when data grows."""
