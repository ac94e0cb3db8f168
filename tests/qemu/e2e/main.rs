//! End-to-end tests: the firmware in QEMU, with QEMU, U-Boot and
//! `lspci` as witnesses.

mod all_kernels;
mod assignment;
mod bad_input;
mod bench;
mod boards;
mod breaking;
mod broken;
mod command_line;
mod consumer;
mod consumer_chain;
mod consumer_churn;
mod consumer_faults;
mod consumer_torture;
mod consumer_vm;
mod early_memory;
mod errata;
mod hardware;
mod host_bridges;
mod hostile;
mod kexec_target;
mod late;
mod linux;
mod machines;
mod memory;
mod preserve;
mod readme;
mod resizable;
mod scale;
mod serror;
mod start;
mod topologies;
mod uefi;
mod uefi_security;
mod virtual_functions;
