"""The embedded engine: a transformers model over our pages."""
