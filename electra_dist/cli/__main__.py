"""`python -m electra_dist.cli`: the command line where no script of that name is installed."""

from electra_dist.cli.main import entry

if __name__ == "__main__":
    entry()
