"""What was found, for people and for machines: a table, JSON, JUnit and a page with pictures."""
