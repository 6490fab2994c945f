"""A plugin that can't be loaded."""

raise RuntimeError("this plugin was never finished")
