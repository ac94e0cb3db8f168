//! What it takes to start an arm64 Linux: its image, its memory, its tree.

pub mod bundle;
pub mod detect;
pub mod devicetree;
pub mod image;
pub mod load_options;
pub mod memory;
pub mod payload;
pub mod tokens;
pub mod uefi;
pub mod unpack;
