//! A client of QEMU's debugger stub: writes to the memory of a guest and to its
//! devices, and stops it where it comes to an address, which QMP cannot.
//!
//! It speaks the packets of the GDB remote serial protocol that this takes.

use std::io::{BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};

/// How long QEMU may take to answer.
const LIMIT: Duration = Duration::from_mins(1);

/// How long the guest may take to come to an address.
const RUN_LIMIT: Duration = Duration::from_mins(30);

/// A connection. As long as there is one the guest holds still.
pub struct Debugger {
    stream: BufReader<UnixStream>,
}

impl Debugger {
    /// The arguments with which QEMU listens at `path`.
    #[must_use]
    pub fn arguments(path: &Path) -> [String; 2] {
        let socket = format!("unix:{},server=on,wait=off", path.display());
        ["-gdb".into(), socket]
    }

    /// Stops the guest of the QEMU that listens at `path`.
    pub fn stop(path: &Path) -> Result<Self> {
        let stream = UnixStream::connect(path)
            .with_context(|| format!("no debugger stub at {}", path.display()))?;
        stream.set_read_timeout(Some(LIMIT))?;
        let mut debugger = Self {
            stream: BufReader::new(stream),
        };
        let why = debugger.ask("?")?;
        ensure!(why.starts_with(['S', 'T']), "the guest runs on: {why}");
        // Addresses are physical from here on.
        debugger.order("Qqemu.PhyMemMode:1")?;
        Ok(debugger)
    }

    /// Reads an aligned dword.
    pub fn read(&mut self, address: u64) -> Result<u32> {
        let bytes = self.ask(&format!("m{address:x},4"))?;
        let value = u32::from_str_radix(&bytes, 16)
            .with_context(|| format!("{address:#x} cannot be read: {bytes}"))?;
        Ok(value.swap_bytes())
    }

    /// Writes an aligned dword.
    pub fn write(&mut self, address: u64, value: u32) -> Result<()> {
        self.order(&format!("M{address:x},4:{:08x}", value.swap_bytes()))
    }

    /// Leaves a mark in the trace of the ECAM window at `ecam`, which the guest
    /// does not notice: a read of one byte, at the offset `number`, of the last
    /// function of the last bus ([`measure::mark`](crate::bench::measure::mark)).
    pub fn mark(&mut self, ecam: u64, number: u16) -> Result<()> {
        let address = ecam + (0xffff << 12) + u64::from(number);
        let byte = self.ask(&format!("m{address:x},1"))?;
        ensure!(byte == "ff", "a function that no machine has: {byte}");
        Ok(())
    }

    /// Lets the guest run to the virtual address `address`, and returns what its
    /// registers have there.
    pub fn run_to(&mut self, address: u64) -> Result<Registers> {
        self.run_to_one_of(&[address])
    }

    /// Lets the guest run to one of these virtual addresses, and returns what its
    /// registers have there. If it is at one of them now, it stays there.
    pub fn run_to_one_of(&mut self, addresses: &[u64]) -> Result<Registers> {
        for address in addresses {
            self.order(&format!("Z1,{address:x},4"))?;
        }
        let stream = self.stream.get_ref();
        stream.set_read_timeout(Some(RUN_LIMIT))?;
        let why = self.ask("c")?;
        ensure!(why.starts_with("T05"), "the guest stopped with {why}");
        self.stream.get_ref().set_read_timeout(Some(LIMIT))?;
        let registers = Registers(self.ask("g")?);
        let stopped = registers.program_counter()?;
        ensure!(
            addresses.contains(&stopped),
            "the guest stopped at {stopped:#x} instead of at one of {addresses:#x?}"
        );
        for address in addresses {
            self.order(&format!("z1,{address:x},4"))?;
        }
        Ok(registers)
    }

    /// Lets the guest execute one instruction.
    pub fn step(&mut self) -> Result<()> {
        let why = self.ask("s")?;
        ensure!(why.starts_with("T05"), "the guest stopped with {why}");
        Ok(())
    }

    /// At the start of a function, where the guest has `registers`: has the function
    /// return `value` at once.
    pub fn return_at_once(&mut self, registers: &Registers, value: u64) -> Result<()> {
        let mut all = registers.0.clone();
        for (place, value) in [(0, value), (PROGRAM_COUNTER, registers.link()?)] {
            let digits = format!("{:016x}", value.swap_bytes());
            all.replace_range(16 * place..16 * (place + 1), &digits);
        }
        self.order(&format!("G{all}"))
    }

    /// Lets the guest go on.
    pub fn go_on(mut self) -> Result<()> {
        self.order("D")
    }

    fn order(&mut self, packet: &str) -> Result<()> {
        let mut answer = self.ask(packet)?;
        // That the guest stopped is reported without being asked as well.
        while answer.starts_with('T') {
            answer = self.answer()?;
        }
        ensure!(answer == "OK", "{packet} was answered with {answer:?}");
        Ok(())
    }

    fn ask(&mut self, packet: &str) -> Result<String> {
        let sum = packet.bytes().fold(0, u8::wrapping_add);
        write!(self.stream.get_mut(), "${packet}#{sum:02x}")
            .with_context(|| format!("cannot send {packet}"))?;
        self.answer()
    }

    fn answer(&mut self) -> Result<String> {
        // `+` accepts what was sent; the answer is between `$` and `#`.
        while self.byte()? != b'$' {}
        let mut answer = String::new();
        loop {
            match self.byte()? {
                b'#' => break,
                // The byte before is repeated.
                b'*' => {
                    let count = self.byte()?.checked_sub(29).context("a short run")?;
                    let Some(last) = answer.chars().last() else {
                        bail!("a run of nothing");
                    };
                    answer.extend((0..count).map(|_| last));
                }
                byte => answer.push(char::from(byte)),
            }
        }
        // The checksum; the connection has its own.
        self.byte()?;
        self.byte()?;
        write!(self.stream.get_mut(), "+")?;
        Ok(answer)
    }

    fn byte(&mut self) -> Result<u8> {
        let mut byte = [0];
        self.stream
            .read_exact(&mut byte)
            .context("QEMU's debugger stub does not answer")?;
        Ok(byte[0])
    }
}

/// Place of the program counter among the registers that the stub sends.
const PROGRAM_COUNTER: usize = 32;

/// The general registers of the guest, as the stub sends them: 16 digits each.
pub struct Registers(String);

impl Registers {
    /// The link register: where a function that starts here returns to.
    pub fn link(&self) -> Result<u64> {
        self.get(30)
    }

    /// Where the guest is.
    pub fn program_counter(&self) -> Result<u64> {
        self.get(PROGRAM_COUNTER)
    }

    /// The general register number `place`, 0 to 30.
    pub fn get(&self, place: usize) -> Result<u64> {
        let all = &self.0;
        let digits = all.get(16 * place..16 * (place + 1));
        let digits = digits.with_context(|| format!("no register {place} in {all:?}"))?;
        let value = u64::from_str_radix(digits, 16).with_context(|| format!("{digits:?}"))?;
        Ok(value.swap_bytes())
    }
}
