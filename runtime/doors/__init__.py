"""Ways in: each is plain functions and one class over a host."""
