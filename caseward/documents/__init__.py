"""Every JSON document that leaves the engine: its shape, and its one builder."""
