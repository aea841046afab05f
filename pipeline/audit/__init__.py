"""Proof, from a version's index alone, that no place and no picture is in two splits."""
