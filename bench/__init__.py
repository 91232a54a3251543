"""Benchmarks: every figure with its machine, versions, seed and count, beside its peer in the same run."""
