"""electra-dist: pre-train ELECTRA encoders on any number of nodes.
The command line is `electra_dist.cli`.

This room is the hall: `errors`, `batch` and `console` are what all other rooms speak with.
"""

__all__ = ["__version__", "batch", "console", "errors"]

#: Also that of the package (pyproject.toml); here, so that it is known where nothing is installed.
__version__ = "0.1.0"
