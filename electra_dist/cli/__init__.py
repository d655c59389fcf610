"""The command line: `main` finds the subcommand, runs it, and turns errors into one line and an
exit status.

Comes in: the words of a shell. Goes out: calls of the library, its results printed, an exit status
of `electra_dist.errors.EXIT_STATUSES`. The subcommands lie in three rooms: `prepare` (before a
run), `runs` (a run itself) and `networks` (what comes of it). Each module offers `add(subparsers)`;
what it runs is imported only when it runs, so that `electra-dist launch` starts without torch and
in a fraction of a second.
"""

__all__ = ["main", "parsers"]
