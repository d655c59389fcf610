"""The subcommands of `electra-dist`: each module parses its arguments, calls the library and prints.

A module offers `add(subparsers)`; what it runs is imported only when it runs, so that `electra-dist launch` starts
without torch and in a fraction of a second.
"""
