//! Where the source ranges of a service stand: a few in the values of its frontends, which the programs have looked up
//! anyway, more in a trie.

use std::net::IpAddr;

use ipnet::IpNet;
use weir_common::{
    addr::{Addr, V4, V6},
    service::Sources,
};

use crate::datapath::Service;

/// The ranges as they stand in the values of the service's frontends; `None` where it has none, or too many.
pub(super) fn in_value(service: &Service) -> Option<Sources> {
    let ranges = &service.source_ranges;
    match ranges.first()? {
        IpNet::V4(_) => list(ranges, |addr| match addr {
            IpAddr::V4(addr) => Some(V4::from_octets(addr.octets())),
            IpAddr::V6(_) => None,
        }),
        IpNet::V6(_) => list(ranges, |addr| match addr {
            IpAddr::V6(addr) => Some(V6::from_octets(addr.octets())),
            IpAddr::V4(_) => None,
        }),
    }
}

/// The ranges that are to be in a trie.
pub(super) fn in_trie(service: &Service) -> &[IpNet] {
    if in_value(service).is_some() { &[] } else { &service.source_ranges }
}

fn list<A: Addr>(ranges: &[IpNet], addr: impl Fn(IpAddr) -> Option<A>) -> Option<Sources> {
    let block = |range: &IpNet| Some((addr(range.network())?, addr(range.netmask())?));
    Sources::of(&ranges.iter().map(block).collect::<Option<Vec<_>>>()?)
}
