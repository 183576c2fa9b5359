"""What the programs do after their command lines are parsed: one module per program, imported by its `main`."""
