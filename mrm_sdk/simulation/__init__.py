"""Synthetic users whose tastes are known, and the texts that they judge."""
