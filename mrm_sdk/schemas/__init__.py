"""Frozen objects that a host hands in and gets back."""
