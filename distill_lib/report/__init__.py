"""What the records say: tables, sentences and comparisons with the paper, and what runs would cost."""
