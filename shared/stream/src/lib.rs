//! stream: to be written.
