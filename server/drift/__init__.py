"""From counters to verdicts: pure numpy, and one service that reads windows and stores what follows."""
