"""What `benchmarks/compare.py` measures, each in a process of its own."""
