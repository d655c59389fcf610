"""Attention inside packed documents: one interface, several backends, chosen once (DESIGN D5)."""

__all__ = ["backends", "flash_implementation"]
