//! The kernel's jiffies, which no file or system call tells as they are: a program asks for them.

use std::{
    io,
    os::fd::{AsFd, FromRawFd, OwnedFd},
};

use super::{Packet, bpf, test_run};

/// `BPF_PROG_TYPE_SCHED_CLS`.
const SCHED_CLS: u32 = 3;
/// `call bpf_jiffies64; exit`: the low half of what the helper returns is the program's verdict.
const INSTRUCTIONS: [u64; 2] = [0x0000_0076_0000_0085, 0x0000_0000_0000_0095];
/// Helpers that are free for all ask for no licence; the kernel asks for a string.
const LICENCE: &[u8; 5] = b"none\0";

#[repr(C)]
struct Load {
    kind: u32,
    instruction_count: u32,
    instructions: u64,
    licence: u64,
    log_level: u32,
    log_size: u32,
    log: u64,
    kernel_version: u32,
    flags: u32,
}

/// The low half of the kernel's jiffies.
///
/// # Errors
/// When the kernel refuses it.
pub fn jiffies() -> io::Result<u32> {
    let mut attr = Load {
        kind: SCHED_CLS,
        instruction_count: INSTRUCTIONS.len() as u32,
        instructions: INSTRUCTIONS.as_ptr() as u64,
        licence: LICENCE.as_ptr() as u64,
        log_level: 0,
        log_size: 0,
        log: 0,
        kernel_version: 0,
        flags: 0,
    };
    // SAFETY: instructions and licence live as long as the call; the descriptor that it returns is ours.
    let program = unsafe { OwnedFd::from_raw_fd(bpf(5, &mut attr)?) };
    let frame = [0; 64];
    Ok(test_run(program.as_fd(), &Packet { data: &frame, ..Packet::default() })?.verdict)
}

#[cfg(test)]
mod tests {
    use std::{thread, time::Duration};

    use super::*;

    #[test]
    fn jiffies_go_on() {
        let first = match jiffies() {
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => return,
            first => first.unwrap(),
        };
        thread::sleep(Duration::from_millis(100));
        let elapsed = jiffies().unwrap().wrapping_sub(first);
        // Ten at 100 Hz, a hundred at 1,000; the machine may be busy.
        assert!((5..5_000).contains(&elapsed), "{elapsed} jiffies in 100 ms");
    }
}
