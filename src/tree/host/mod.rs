//! Host paths: the one place that names them, always beneath an open folder.
