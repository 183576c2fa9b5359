"""What a compiled program costs and sends, read from its text, and the hardware it is compiled for."""
