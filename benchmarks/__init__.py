"""What a training step costs. `bench.py` measures it; the tests assert parts of it."""
