"""Contains what several programs use. Programs import this package; it imports no program."""
