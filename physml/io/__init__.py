"""Files in, plain arrays out, and back; nothing here imports jax."""
