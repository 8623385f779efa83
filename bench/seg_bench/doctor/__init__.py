"""What a machine can do for edgeseg: facts are gathered, then judged, then shown."""
