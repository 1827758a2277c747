"""Rows from hub data sets, local files and the documented functions of installed packages."""
