//! What is kept of this host's network between two changes, so that a change need not read all of it again.

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, Instant},
};

use super::{announcements::News, enforcer::Mac, interfaces::Snapshot};

/// How long nothing must have been announced before a reading is kept. The kernel announces that an interface goes down
/// before it removes the routes over it, and does not announce that.
const SETTLED: Duration = Duration::from_secs(1);

/// The last reading, as long as nothing has been announced since, and MAC addresses of pods, each as long as nothing
/// has been announced of its interface.
#[derive(Debug)]
pub(super) struct Memory {
    snapshot: Option<Arc<Snapshot>>,
    /// By the host's end.
    macs: BTreeMap<u32, Mac>,
    /// When something was announced last.
    stirred: Instant,
}

impl Memory {
    /// Of nothing. Who knows what was announced a moment ago.
    pub(super) const fn new(now: Instant) -> Self {
        Self { snapshot: None, macs: BTreeMap::new(), stirred: now }
    }

    /// Forgets what may be otherwise now.
    pub(super) fn hear(&mut self, news: &News, now: Instant) {
        match news {
            News::Nothing => return,
            News::Some(interfaces) => self.macs.retain(|ifindex, _| !interfaces.contains(ifindex)),
            News::Lost => self.macs.clear(),
        }
        self.snapshot = None;
        self.stirred = now;
    }

    /// The reading that still holds.
    pub(super) fn snapshot(&self) -> Option<Arc<Snapshot>> {
        self.snapshot.clone()
    }

    /// Keeps a reading that began `now`.
    pub(super) fn keep(&mut self, snapshot: &Arc<Snapshot>, now: Instant) {
        let settled = now.duration_since(self.stirred) >= SETTLED;
        self.snapshot = settled.then(|| Arc::clone(snapshot));
    }

    /// The MAC address behind an interface.
    pub(super) fn mac(&self, ifindex: u32) -> Option<Mac> {
        self.macs.get(&ifindex).copied()
    }

    /// Keeps the MAC address behind an interface.
    pub(super) fn keep_mac(&mut self, ifindex: u32, mac: Mac) {
        self.macs.insert(ifindex, mac);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAC: Mac = Mac([2, 0, 0, 0, 0, 1]);

    /// A memory of a reading and of MAC addresses behind interfaces 7 and 8, and when that was.
    fn full() -> (Memory, Instant) {
        let begun = Instant::now();
        let now = begun + SETTLED;
        let mut memory = Memory::new(begun);
        memory.keep(&Arc::default(), now);
        memory.keep_mac(7, MAC);
        memory.keep_mac(8, MAC);
        (memory, now)
    }

    #[test]
    fn everything_is_kept_while_nothing_is_announced() {
        let (mut memory, now) = full();

        memory.hear(&News::Nothing, now + SETTLED);

        assert!(memory.snapshot().is_some());
        assert_eq!((memory.mac(7), memory.mac(8)), (Some(MAC), Some(MAC)));
    }

    #[test]
    fn an_announcement_ends_the_reading_and_the_mac_address_of_its_interface() {
        let (mut memory, now) = full();

        memory.hear(&News::Some([7, 9].into()), now);

        assert!(memory.snapshot().is_none());
        assert_eq!((memory.mac(7), memory.mac(8)), (None, Some(MAC)));
    }

    #[test]
    fn an_announcement_of_a_route_ends_the_reading() {
        let (mut memory, now) = full();

        memory.hear(&News::Some([].into()), now);

        assert!(memory.snapshot().is_none());
        assert_eq!((memory.mac(7), memory.mac(8)), (Some(MAC), Some(MAC)));
    }

    #[test]
    fn nothing_is_kept_when_announcements_were_lost() {
        let (mut memory, now) = full();

        memory.hear(&News::Lost, now);

        assert!(memory.snapshot().is_none());
        assert_eq!((memory.mac(7), memory.mac(8)), (None, None));
    }

    #[test]
    fn a_reading_shortly_after_an_announcement_is_not_kept() {
        let (mut memory, now) = full();
        memory.hear(&News::Some([].into()), now);

        memory.keep(&Arc::default(), now + SETTLED / 2);
        assert!(memory.snapshot().is_none());

        memory.keep(&Arc::default(), now + SETTLED);
        assert!(memory.snapshot().is_some());
    }
}
