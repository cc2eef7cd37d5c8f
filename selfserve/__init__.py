"""The platform: embedded stack, apply, SQL, command line."""
