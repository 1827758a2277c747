"""Where a model comes from, told from its provenance: as values, as a page."""
