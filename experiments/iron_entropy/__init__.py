"""Vibrational entropy of point defects in bcc iron."""
