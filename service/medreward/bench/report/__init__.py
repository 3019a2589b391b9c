"""Pages for people: one run against another, and many runs side by side. One file each, nothing from a network."""
