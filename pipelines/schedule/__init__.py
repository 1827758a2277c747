"""Runs that a clock starts: by systemd, cron or the stack's own scheduler."""
