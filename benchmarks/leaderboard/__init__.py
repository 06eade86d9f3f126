"""The leaderboard: every agent of the package on the three ids, and what they are held against."""
