"""The process that serves the API: settings, own log, lock, listeners, and what is built in which order."""
