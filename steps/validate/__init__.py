"""Which rows are fit for training: rules, checked with Great Expectations; the others go to quarantine."""
