"""Games between contestants: who plays, who meets whom, and what is recorded of it."""
