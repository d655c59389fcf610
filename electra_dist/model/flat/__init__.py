"""Few flat parameters instead of hundreds: where each parameter lies in one, and networks that are
made of them.

Comes in: a network. Goes out: the same network, as the engines partition, gather and reduce it.
"""

__all__ = ["network", "slots"]
