"""Replaying a topic beside its table: a branch, its filling, and the swap."""
