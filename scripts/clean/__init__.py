"""Cleaning: one raw source -> typed episodes, refused rows with their reasons, and an audit."""
