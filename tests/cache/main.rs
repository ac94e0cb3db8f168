//! The cache against hardware that answers for itself.

mod common;
mod mistakes;
mod transparency;
