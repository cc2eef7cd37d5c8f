"""What services import to emit events."""
