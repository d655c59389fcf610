"""Shards to whole training steps, in numpy; knows no torch."""
