"""Show: plots, tables and pages; reads results only."""
