//! The cache against hardware that answers for itself.

mod bookkeeping;
mod classes;
mod common;
mod effects;
mod entangled;
mod extended_classes;
mod handover;
mod lifetimes;
mod mistakes;
mod structures;
mod tags;
mod targets;
mod transparency;
mod twin;
mod vfs;
mod writes;
