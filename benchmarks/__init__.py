"""What loopsentry costs, measured: `python -m benchmarks`."""
