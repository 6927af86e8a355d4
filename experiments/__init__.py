"""Reproductions of published results, one folder each."""
