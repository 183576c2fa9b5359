"""What the programs share; no program is imported here."""
