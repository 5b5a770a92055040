"""The benchmarks' own parts: charts, results, the page, the stores they start."""
