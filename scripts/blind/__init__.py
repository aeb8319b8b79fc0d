"""Blind test: people compare the candidates' replies without names; their votes become ratings."""
