"""Upkeep in the loop: snapshots expire, small files become large ones, files that no snapshot needs are deleted."""
