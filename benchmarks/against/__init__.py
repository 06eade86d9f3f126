"""One version of hmgym against another: times in one run on one machine, and the values they compute."""
