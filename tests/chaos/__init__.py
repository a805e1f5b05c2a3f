"""Faults, one after the other, against the real program: `make chaos`; in short, tests/test_chaos.py."""
