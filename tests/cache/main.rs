//! The cache against hardware that answers for itself.

mod common;
mod handover;
mod mistakes;
mod transparency;
