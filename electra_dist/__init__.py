"""electra-dist: pre-train ELECTRA encoders on any number of nodes. The command line is `electra_dist.cli`."""
