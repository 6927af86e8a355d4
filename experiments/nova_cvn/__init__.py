"""Two-view neutrino classification in the manner of NOvA's CVN."""
