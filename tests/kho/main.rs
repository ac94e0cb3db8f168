//! Kexec HandOver: what is handed over, what is read back, and what is refused.

mod arguments;
mod blocks;
mod captured;
mod chain;
mod common;
mod damaged;
mod decode;
mod generic;
mod layout;
mod map;
mod map_limits;
mod memory;
mod previous;
mod reader;
mod records;
mod reserved;
mod round_trip;
mod routing;
mod trees;
mod verify;
mod verify_map;
