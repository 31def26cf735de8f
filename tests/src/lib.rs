//! tests: to be written.

pub mod cases;
pub mod demo;
pub mod stack;
