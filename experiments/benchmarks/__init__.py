"""Measurements beside their alternatives; run by experiments.benchmark."""
