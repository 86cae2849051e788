//! Running a program on a packet: `BPF_PROG_TEST_RUN`.

use std::{
    io,
    os::fd::{AsRawFd, BorrowedFd},
};

use super::bpf;

#[repr(C)]
struct Test {
    program: u32,
    verdict: u32,
    data_size_in: u32,
    data_size_out: u32,
    data_in: u64,
    data_out: u64,
    repeat: u32,
    duration: u32,
    context_size_in: u32,
    context_size_out: u32,
    context_in: u64,
    context_out: u64,
    flags: u32,
    cpu: u32,
    batch_size: u32,
    reserved: u32,
}

/// A packet for [`test_run`].
#[derive(Clone, Copy, Debug, Default)]
pub struct Packet<'a> {
    /// The packet from its link-layer header on.
    pub data: &'a [u8],
    /// How many times the program is run on it; 0 is once.
    pub repeat: u32,
    /// `__sk_buff::ifindex`, an existing interface.
    pub ifindex: u32,
    /// `__sk_buff::ingress_ifindex`.
    pub ingress_ifindex: u32,
    /// `__sk_buff::mark`.
    pub mark: u32,
    /// `__sk_buff::gso_size`: the length of the segments that the packet is to become, 0 for an ordinary one.
    pub gso_size: u32,
}

/// What [`test_run`] gives.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// What the program returned.
    pub verdict: u32,
    /// The packet after it.
    pub data: Vec<u8>,
    /// `__sk_buff::mark` after it.
    pub mark: u32,
    /// Nanoseconds of one run, on average.
    pub nanoseconds: u32,
}

/// Runs a program of type `SCHED_CLS` on a packet.
///
/// # Errors
/// When the kernel refuses it, as for a packet shorter than a link-layer header.
pub fn test_run(program: BorrowedFd<'_>, packet: &Packet<'_>) -> io::Result<Outcome> {
    // `struct __sk_buff`, with room for what newer kernels add to it.
    let mut context = [0_u32; 64];
    context[2] = packet.mark;
    context[9] = packet.ingress_ifindex;
    context[10] = packet.ifindex;
    context[44] = packet.gso_size;
    let (data, verdict, nanoseconds) = run(program, packet, &mut context)?;
    Ok(Outcome { verdict, data, mark: context[2], nanoseconds })
}

/// Runs a program of type `XDP` on a packet that comes in at `packet.ingress_ifindex`.
///
/// # Errors
/// When the kernel refuses it.
pub fn test_run_xdp(program: BorrowedFd<'_>, packet: &Packet<'_>) -> io::Result<Outcome> {
    // `struct xdp_md`: data, data_end, data_meta, ingress_ifindex, rx_queue_index, egress_ifindex.
    let mut context = [0, packet.data.len() as u32, 0, packet.ingress_ifindex, 0, 0];
    let (data, verdict, nanoseconds) = run(program, packet, &mut context)?;
    Ok(Outcome { verdict, data, mark: 0, nanoseconds })
}

fn run(program: BorrowedFd<'_>, packet: &Packet<'_>, context: &mut [u32]) -> io::Result<(Vec<u8>, u32, u32)> {
    // Room for what a program may put in front.
    let mut out = vec![0_u8; packet.data.len() + 256];
    let context_in = context.to_vec();
    let context_size = size_of_val(context) as u32;
    let mut attr = Test {
        program: program.as_raw_fd() as u32,
        verdict: 0,
        data_size_in: packet.data.len() as u32,
        data_size_out: out.len() as u32,
        data_in: packet.data.as_ptr() as u64,
        data_out: out.as_mut_ptr() as u64,
        repeat: packet.repeat,
        duration: 0,
        context_size_in: context_size,
        context_size_out: context_size,
        context_in: context_in.as_ptr() as u64,
        context_out: context.as_mut_ptr() as u64,
        flags: 0,
        cpu: 0,
        batch_size: 0,
        reserved: 0,
    };
    // SAFETY: all four buffers are as long as their sizes say.
    unsafe { bpf(10, &mut attr) }?;
    out.truncate(attr.data_size_out as usize);
    Ok((out, attr.verdict, attr.duration))
}
