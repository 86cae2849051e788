//! Fragments whose first has not come.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use weir_common::early::{PATIENCE, SHARE};

use super::{DatagramKey, Expected, Oracle, Packet};

/// What waits, until its first comes.
#[derive(Debug, Default)]
pub(super) struct Waiting {
    frames: HashMap<DatagramKey, Vec<Vec<u8>>>,
    count: u32,
    since: Option<Instant>,
}

impl Oracle {
    /// Whether all that waits is to be forgotten, there and here: before a sender's share is full or any of it has
    /// waited too long, for the model knows neither.
    pub fn is_tired(&self) -> bool {
        let most = Duration::from_secs(PATIENCE.into()) / 2;
        self.waiting.count >= SHARE || self.waiting.since.is_some_and(|since| since.elapsed() > most)
    }

    /// Forgets what waits.
    pub fn forget_waiting(&mut self) {
        self.waiting = Waiting::default();
    }

    /// What becomes of a fragment that comes before its first, and of the first that others wait for; `None` for
    /// all other packets.
    pub(super) fn keep(&mut self, frame: &[u8], packet: &Packet, scope: u32) -> Option<Expected> {
        let (piece, key) = (packet.piece?, Self::datagram(packet, scope)?);
        let known = self.datagrams.get(&key).copied();
        if piece.start != 0 {
            if known.is_some() {
                return None;
            }
            self.waiting.frames.entry(key).or_default().push(frame.to_vec());
            self.waiting.count += 1;
            self.waiting.since.get_or_insert_with(Instant::now);
            return Some(Expected::Waits);
        }
        let first = (packet.sport, packet.dport, piece.end);
        if known.is_some_and(|known| known != first) {
            return None;
        }
        let mut frames = self.waiting.frames.remove(&key)?;
        self.datagrams.insert(key, first);
        frames.insert(0, frame.to_vec());
        Some(Expected::Again(frames))
    }
}
