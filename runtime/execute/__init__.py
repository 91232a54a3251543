"""What waits, calls or talks for tools."""
