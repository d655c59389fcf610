"""Slurm: cluster profiles, job scripts, and what its commands say.

Comes in: a configuration and a cluster profile. Goes out: a job script, submitted, and the state of
jobs.
"""

__all__ = ["asking", "clusters", "discover", "preconditions", "queue", "submit"]
