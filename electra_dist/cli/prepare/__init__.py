"""Subcommands before a run: data, config, plan, bench, preflight."""

__all__ = ["bench", "completion", "config", "data", "plan", "preflight"]
