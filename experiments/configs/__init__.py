"""ml-collections configs: default.py explains every setting, the others change a few."""
