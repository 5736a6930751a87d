"""Reading, checking and atomic writing of files: scenarios, policies, tunings, downloads."""
