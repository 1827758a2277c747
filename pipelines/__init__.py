"""The pipeline of all steps, the check of its configuration, and the commands on what it made."""
