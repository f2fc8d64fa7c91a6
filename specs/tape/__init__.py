"""The reference model: exact numbers that remember how they came about. It knows nothing of PyTorch."""
