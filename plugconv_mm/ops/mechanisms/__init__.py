"""Mechanisms that several operators share."""
