"""Settings of trainings as ml_collections configs: default.py explains every key, the other files change some."""
