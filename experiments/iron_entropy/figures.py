def figures(results): return {}
