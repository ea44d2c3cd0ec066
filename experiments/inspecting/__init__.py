"""What the data card is made of: one pass over each table, a sample for the leak checks, and how it is shown."""
