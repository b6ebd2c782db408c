"""First-party encoders; each module is a plugin, registered like anybody's."""
