"""What reads run directories: records, the summary, the report, and the report of a run that is still training."""
