//! The hosts from outside: a real socket, a real process, and a stand-in for Lambda's API.

mod child;
mod http;
mod lambda;
mod metrics;
mod process;
mod server;
