//! Those who observe, and the programs' knowledge of whether there are any.

use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::broadcast;

use crate::protocol::Observation;

/// Hears how many observe, whenever that changes.
type Tell = dyn Fn(usize) + Send + Sync;

/// Where observers join.
#[derive(Clone)]
pub(super) struct Observers {
    observations: broadcast::Sender<Arc<Observation>>,
    /// One at a time: what was told last is so.
    tell: Arc<Mutex<Box<Tell>>>,
}

/// One who observes.
pub(super) struct Observer {
    /// What there is to see. `None` only when it is being dropped.
    observations: Option<broadcast::Receiver<Arc<Observation>>>,
    all: Observers,
}

impl Observers {
    /// Nobody yet, which is told at once: a predecessor may have died with somebody watching.
    pub(super) fn new(
        observations: broadcast::Sender<Arc<Observation>>,
        tell: impl Fn(usize) + Send + Sync + 'static,
    ) -> Self {
        tell(0);
        Self { observations, tell: Arc::new(Mutex::new(Box::new(tell))) }
    }

    /// One more.
    pub(super) fn join(&self) -> Observer {
        let observations = self.change(|| self.observations.subscribe());
        Observer { observations: Some(observations), all: self.clone() }
    }

    fn change<T>(&self, change: impl FnOnce() -> T) -> T {
        let tell = self.tell.lock().unwrap_or_else(PoisonError::into_inner);
        let result = change();
        tell(self.observations.receiver_count());
        result
    }
}

impl Observer {
    /// The next observation.
    pub(super) async fn next(&mut self) -> Result<Arc<Observation>, broadcast::error::RecvError> {
        match &mut self.observations {
            Some(observations) => observations.recv().await,
            None => Err(broadcast::error::RecvError::Closed),
        }
    }
}

impl Drop for Observer {
    fn drop(&mut self) {
        let observations = self.observations.take();
        self.all.change(|| drop(observations));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_programs_hear_how_many_observe() {
        let told = Arc::new(Mutex::new(Vec::new()));
        let (sender, receiver) = broadcast::channel(1);
        drop(receiver);
        let heard = told.clone();
        let observers = Observers::new(sender, move |count| heard.lock().unwrap().push(count));
        let (first, second) = (observers.join(), observers.join());
        drop(first);
        drop(second);
        assert_eq!(*told.lock().unwrap(), [0, 1, 2, 1, 0]);
    }
}
