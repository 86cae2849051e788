//! Events on their way to observers, and the last ones for observers who come later.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokio::sync::broadcast;
use weir_common::event::Event as Record;

use super::events::Names;
use crate::protocol::{Event, Filter};

/// Events that are kept.
const KEPT: usize = 4096;
/// Events that a slow observer may be behind.
const BEHIND: usize = 4096;

/// The events of an agent.
#[derive(Debug)]
pub(super) struct EventLog {
    recent: Mutex<VecDeque<Recent>>,
    observers: broadcast::Sender<Arc<Event>>,
}

/// An event that is put into words when somebody asks for it.
#[derive(Debug)]
enum Recent {
    Packet(Record, Arc<Names>),
    Told(Arc<Event>),
}

impl Default for EventLog {
    fn default() -> Self {
        Self::with_room(BEHIND)
    }
}

impl EventLog {
    /// Observers may be this many events behind.
    pub(super) fn with_room(behind: usize) -> Self {
        Self { recent: Mutex::default(), observers: broadcast::channel(behind).0 }
    }

    /// A record of the programs.
    pub(super) fn packet(&self, record: Record, names: Arc<Names>) {
        let mut recent = self.recent();
        if self.observers.receiver_count() > 0 {
            // The last observer may have gone meanwhile.
            drop(self.observers.send(Arc::new(Event::Packet(Box::new(names.describe(&record))))));
        }
        keep(&mut recent, Recent::Packet(record, names));
    }

    /// Something that the agent itself has found out.
    pub(super) fn tell(&self, event: Event) {
        let event = Arc::new(event);
        let mut recent = self.recent();
        drop(self.observers.send(Arc::clone(&event)));
        keep(&mut recent, Recent::Told(event));
    }

    /// The last events that `filter` lets through, at most `last` of them, and those that follow: none is missing
    /// between them, and none is there twice.
    pub(super) fn subscribe(
        &self,
        filter: &Filter,
        last: usize,
    ) -> (Vec<Arc<Event>>, broadcast::Receiver<Arc<Event>>) {
        let recent = self.recent();
        let follow = self.observers.subscribe();
        let described = recent.iter().rev().map(|recent| match recent {
            Recent::Packet(record, names) => Arc::new(Event::Packet(Box::new(names.describe(record)))),
            Recent::Told(event) => Arc::clone(event),
        });
        let mut found: Vec<_> = described.filter(|event| filter.matches(event)).take(last).collect();
        found.reverse();
        (found, follow)
    }

    /// Nothing that holds the lock can panic half-way.
    fn recent(&self) -> MutexGuard<'_, VecDeque<Recent>> {
        self.recent.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How many observe.
    #[cfg(test)]
    pub(super) fn observers(&self) -> usize {
        self.observers.receiver_count()
    }
}

fn keep(recent: &mut VecDeque<Recent>, event: Recent) {
    if recent.len() == KEPT {
        recent.pop_front();
    }
    recent.push_back(event);
}

#[cfg(test)]
mod tests {
    use weir_common::{
        addr::{Be16, V6},
        event::kind,
    };

    use super::*;
    use crate::protocol::Verdict;

    fn record(number: u16, kind: u8) -> Record {
        Record { kind, family: 6, dst: V6([1, 2, 3, 4]), dport: Be16::new(number), ..Record::default() }
    }

    fn ports(events: &[Arc<Event>]) -> Vec<u16> {
        let port = |event: &Arc<Event>| match &**event {
            Event::Packet(seen) => seen.destination.as_ref().unwrap().port,
            other => panic!("{other:?}"),
        };
        events.iter().map(port).collect()
    }

    #[test]
    fn the_last_events_are_kept_and_filtered_before_they_are_counted() {
        let log = EventLog::default();
        for number in 0..10 {
            log.packet(record(number, if number % 2 == 0 { kind::DROP } else { kind::FLOW }), Arc::default());
        }

        let dropped = Filter { verdict: Some(Verdict::Dropped), ..Filter::default() };
        assert_eq!(ports(&log.subscribe(&dropped, 3).0), [4, 6, 8]);
        assert_eq!(ports(&log.subscribe(&Filter::default(), 2).0), [8, 9]);
        assert_eq!(ports(&log.subscribe(&Filter::default(), 0).0), [0; 0]);
    }

    #[test]
    fn what_follows_begins_where_the_last_ones_end() {
        let log = EventLog::default();
        log.packet(record(1, kind::DROP), Arc::default());

        let (before, mut after) = log.subscribe(&Filter::default(), 10);
        log.packet(record(2, kind::DROP), Arc::default());

        assert_eq!(ports(&before), [1]);
        assert_eq!(ports(&[after.try_recv().unwrap()]), [2]);
        assert!(after.try_recv().is_err());
    }

    #[test]
    fn the_oldest_event_makes_room() {
        let log = EventLog::default();
        for number in 0..=KEPT {
            log.packet(record(number as u16, kind::DROP), Arc::default());
        }

        let (kept, _) = log.subscribe(&Filter::default(), usize::MAX);

        assert_eq!((kept.len(), ports(&kept)[0]), (KEPT, 1));
    }
}
