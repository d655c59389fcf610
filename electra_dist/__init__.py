"""electra-dist: pre-train ELECTRA encoders on any number of nodes.
The command line is `electra_dist.cli`.
"""

#: Also that of the package (pyproject.toml); here, so that it is known where nothing is installed.
__version__ = "0.1.0"
