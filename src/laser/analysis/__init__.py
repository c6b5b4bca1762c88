"""Reading run directories: summaries, and later tables and reports."""
