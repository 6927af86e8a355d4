"""Showers in calorimeters from a conditional GAN, judged as the CaloChallenge judges."""
