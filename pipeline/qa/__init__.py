"""The QA page of a scene: what was measured, what the recipe did to it, what became of its tiles.

`gather` looks at the scene's pixels once, as the build's own functions make them, and keeps small
arrays; `figures`, `page` and `numbers` turn these into pictures, one HTML file and one JSON file.
"""
