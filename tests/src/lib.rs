//! tests: to be written.

pub mod bench;
pub mod cases;
pub mod demo;
pub mod stack;
