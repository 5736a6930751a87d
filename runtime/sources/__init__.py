"""Where frames come from: cameras, streams, files, folders, pipes and recorded samples."""
