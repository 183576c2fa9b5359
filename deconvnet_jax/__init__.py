"""DeconvNet (Noh, Hong, Han; ICCV 2015) in JAX and Flax: see README.md."""

__version__ = "0.1.0"
