"""The verbs on containers: create, start, stop, attach, remove, restore."""
