//! From files to a cluster: strict, with every error at its file, line and column.
