"""physml: a functional JAX toolkit for machine learning on physics data.

Importing this package touches no device and loads neither jax nor flax.
"""

__version__ = "0.1.0"
