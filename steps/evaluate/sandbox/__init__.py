"""Runs generated programs, and the tests of the data, where they can do no harm and cannot fake a result."""
