"""Subcommands before a run: data, config, plan, bench, preflight."""

__all__ = ["bench", "config", "data", "plan", "preflight"]
