//! What the tests, the case runner, the demo and the benches are made of.

pub mod bench;
pub mod cases;
pub mod demo;
pub mod manifests;
pub mod nginx;
pub mod stack;
