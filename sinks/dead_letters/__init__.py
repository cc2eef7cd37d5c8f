"""Dead letters: what cannot become a row is kept whole in a topic, entered in a table, and put back after a mend."""
