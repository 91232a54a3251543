"""The lean path: our own forward pass for decoders like Llama, which knows nothing of the general one."""
