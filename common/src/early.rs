//! Fragments that come before the first of their datagram, and wait for it.
//!
//! `EARLY` is an `ARRAY` map of [`EarlySet`]s, `EARLY_FRAMES` one of the frames, [`WAYS`] for each set. All that
//! one sender has waiting is in one set, where it gets no more than its [`SHARE`]; pods have sets of their own.
//! So nobody can fill the table, nor any part of it, and what comes from outside never takes a pod's place.
//!
//! A way is taken, written and published by its tag, as in the flow table (see [`crate::flow`]).

use crate::{
    addr::V6,
    flow::{FragmentKey, mix},
    plain,
};

/// Frames of one set: more than a datagram of 64 KiB has in packets of 1,500 bytes.
pub const WAYS: usize = 64;
/// How many of them one sender may have.
pub const SHARE: u32 = 48;
/// Sets, a power of two. The second half is for what pods of this node send.
pub const SETS: u32 = 8;
/// How long a fragment waits, in seconds: much longer than packets overtake one another.
pub const PATIENCE: u32 = 2;
/// Longest frame that is kept: one of 9,000 bytes and its headers.
pub const FRAME_MAX: usize = 9216;

/// Tag of a way that is free.
pub const FREE: u64 = 0;
/// Tag of a way that is being written or sent.
pub const BUSY: u64 = 1;
/// Set in the tag of every frame, so that none looks free or busy.
pub const USED: u64 = 1 << 63;

/// A datagram of either family: addresses of IPv4 in the first word, the version above the protocol's number.
pub type EarlyKey = FragmentKey<V6>;

/// Element of the `EARLY` array.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct EarlySet {
    /// Frames in the set, those that have waited too long counted in.
    pub held: u64,
    /// What each belongs to: [`tag`], [`FREE`] or [`BUSY`].
    pub tags: [u64; WAYS],
    /// When each came, the low half of the kernel's jiffies.
    pub seen: [u32; WAYS],
    /// Who sent it: [`sender`].
    pub senders: [u32; WAYS],
}

impl EarlySet {
    /// A set in which nothing waits.
    pub const EMPTY: Self = Self { held: 0, tags: [FREE; WAYS], seen: [0; WAYS], senders: [0; WAYS] };
}

/// Element of the `EARLY_FRAMES` array.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct EarlyFrame {
    /// The datagram that it is of.
    pub key: EarlyKey,
    /// Length of the frame.
    pub len: u32,
    /// The frame, from its Ethernet header on.
    pub data: [u8; FRAME_MAX],
}

plain!(EarlySet: 1032, EarlyFrame: 9264);

/// What the frames of a datagram are found by.
#[inline(always)]
pub fn tag(key: &EarlyKey) -> u64 {
    let pair = |high: u32, low: u32| u64::from(high) << 32 | u64::from(low);
    let (V6(src), V6(dst)) = (&key.src, &key.dst);
    let mut hash = mix(USED, pair(key.scope, key.id));
    hash = mix(hash, pair(src[0], dst[0]));
    hash = mix(hash, pair(src[1], dst[1]));
    hash = mix(hash, pair(src[2], dst[2]));
    hash = mix(hash, pair(src[3], dst[3]));
    mix(hash, u64::from(key.protocol)) | USED
}

/// Who has sent a fragment: the pod, by its interface, whatever it claims to be; else the IPv4 address or the
/// IPv6 network of 64 bits, of which a single host has every address.
#[inline(always)]
pub fn sender(key: &EarlyKey) -> u32 {
    let V6(src) = &key.src;
    if key.scope != 0 {
        key.scope
    } else {
        (mix(USED, u64::from(src[0]) << 32 | u64::from(src[1])) >> 32) as u32
    }
}

/// The set of a sender.
#[inline(always)]
pub fn set_of(scope: u32, sender: u32) -> u32 {
    const HALF: u32 = SETS / 2;
    // The high bits of a hash are its best.
    if scope != 0 { HALF + (sender & (HALF - 1)) } else { sender >> (u32::BITS - HALF.ilog2()) }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::addr::V4;

    fn key(src: V6, scope: u32, id: u32) -> EarlyKey {
        EarlyKey { src, dst: V6([9; 4]), scope, id, protocol: 4 << 8 | 17 }
    }

    #[test]
    fn a_pod_is_one_sender_whatever_address_it_claims() {
        for number in 0..100 {
            let key = key(V6([number, number, 0, 1]), 7, number);
            assert_eq!(sender(&key), 7);
            assert!(set_of(7, sender(&key)) >= SETS / 2);
        }
    }

    #[test]
    fn an_ipv6_network_is_one_sender_outside() {
        let one = |low| sender(&key(V6([0x20, 0x01, low, low]), 0, low));
        assert_eq!(one(1), one(2));
        assert_ne!(one(1), sender(&key(V6([0x20, 0x02, 1, 1]), 0, 1)));
    }

    #[test]
    fn senders_outside_spread_over_their_sets() {
        let sets: BTreeSet<_> = (0..200_u8)
            .map(|host| {
                let V4(word) = V4::from_octets([203, 0, 113, host]);
                set_of(0, sender(&key(V6([word, 0, 0, 0]), 0, 1)))
            })
            .collect();
        assert_eq!(sets, (0..SETS / 2).collect());
    }

    #[test]
    fn every_part_of_the_key_changes_the_tag() {
        let base = key(V6([1, 2, 3, 4]), 5, 6);
        let others = [
            EarlyKey { src: V6([1, 2, 3, 5]), ..base },
            EarlyKey { dst: V6([9, 9, 8, 9]), ..base },
            EarlyKey { scope: 6, ..base },
            EarlyKey { id: 7, ..base },
            EarlyKey { protocol: 6 << 8 | 17, ..base },
        ];
        for other in others {
            assert_ne!(tag(&other), tag(&base), "{other:?}");
            assert!(tag(&other) > BUSY);
        }
    }
}
