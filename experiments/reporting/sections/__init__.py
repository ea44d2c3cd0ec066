"""The parts of a tournament report, each from the summary and the games that it shows."""
