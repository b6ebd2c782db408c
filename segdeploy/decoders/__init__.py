"""First-party decoders; each module is a plugin, registered like anybody's."""
