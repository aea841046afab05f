"""What is said about a version to people and other tools: queries, dataset card, STAC, Croissant.

Reads stores by `storage`, writes files of its own; knows no reader, step or flow.
"""
