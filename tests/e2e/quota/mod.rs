//! Prepaid credits, from a call to the next one's refusal.

mod books;
mod gate;
mod nginx;
mod till;
mod told;
