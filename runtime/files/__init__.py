"""Reading, checking and atomic writing of files: traces, scenarios, policies, tunings, downloads."""
