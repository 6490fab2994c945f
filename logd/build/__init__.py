"""Builds: a Dockerfile and its context, step by step, to an image. Source: the Dockerfile reference."""
