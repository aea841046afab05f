"""Splits by place."""
