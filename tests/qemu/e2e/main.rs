//! End-to-end tests: the firmware in QEMU, with QEMU, U-Boot and
//! `lspci` as witnesses.

mod bad_input;
mod command_line;
mod linux;
mod machines;
mod preserve;
mod readme;
mod start;
mod topologies;
mod uefi;
