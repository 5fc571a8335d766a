"""Faster ways to do what `rlstack.ppo` does; without this package no feature is missing."""
