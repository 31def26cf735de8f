//! Prepaid credits, from a call to the next one's refusal.

mod books;
mod gate;
mod till;
mod told;
