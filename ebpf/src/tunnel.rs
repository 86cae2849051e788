//! Tunnels to the backends of other nodes: IP in IP (RFC 2003, RFC 2473).
//!
//! A packet for a service that is forwarded by DSR goes to its backend as the client sent it, behind a second
//! header: from this node to the backend's address, which tells the backend's node who was chosen. That node
//! takes the header off and lets the backend answer the client itself.

use weir_common::header::IpHeader;

use crate::{
    ctx::{Ctx, Raw},
    family::Family,
    words,
};

/// What goes through every network of the family with the tunnel's header around it: no need to look.
const ALWAYS_FITS: u32 = 1280;

/// Whether a packet of `len` bytes fits through the interface `ifindex` inside of a tunnel.
#[inline(always)]
pub fn fits<F: Family>(ctx: &Ctx<impl Raw>, len: u16, ifindex: u32) -> bool {
    let len = u32::from(len) + size_of::<F::Header>() as u32;
    len <= ALWAYS_FITS || len <= ctx.mtu(ifindex)
}

/// Writes the header of a tunnel around a packet of `len` bytes and of this class of service.
#[inline(always)]
pub fn write<F: Family>(header: &mut F::Header, class: u8, len: u16, from: &F::Addr, to: &F::Addr) {
    header.wrap(class, len);
    // SAFETY: the header's two addresses, in the packet, and places in maps.
    unsafe {
        let addresses = header.addresses().cast::<F::Addr>();
        words::copy(addresses, from);
        words::copy(addresses.add(1), to);
    }
    header.seal();
}
