"""Showers in calorimeters: maker, features, generative networks and their judge."""
