"""Reads from a compiled program what it costs and sends, and describes the hardware that it is compiled for."""
