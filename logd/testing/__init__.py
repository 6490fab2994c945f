"""For authors of log drivers: a conformance suite, and a proxy between driver and destination that has faults."""
