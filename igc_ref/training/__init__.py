"""Training: settings, optimiser, the loop, and the session that saves, stops and reports."""
