"""Prometheus metrics, made at the time of a scrape."""
