"""What was there before deep networks, and what these have to beat: on arrays, in float64."""
