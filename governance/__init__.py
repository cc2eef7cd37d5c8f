"""The mesh proves itself: audits that trust neither producers nor sinks."""
