//! Many connections at once.

use std::{
    net::SocketAddr,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};

use super::{drops::Drops, socket::Client};
use crate::live::netns;

/// A datagram that was neither answered nor dropped is sent again: a queue may have been full.
const AGAIN: Duration = Duration::from_millis(250);
const TICK: Duration = Duration::from_millis(1);

/// A connection to be opened from a namespace.
#[derive(Clone, Debug)]
pub(super) struct Attempt {
    pub(super) netns: String,
    /// IP protocol number.
    pub(super) protocol: u8,
    /// A port of 0 stands for any.
    pub(super) from: SocketAddr,
    pub(super) to: SocketAddr,
}

/// What became of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    /// The name of the server that answered.
    Answer(String),
    /// A program dropped the first packet, and said why.
    Dropped(String),
    /// Neither; the system error.
    Refused(String),
    /// None of these in time.
    Silence,
}

/// Connections that are being opened.
pub(super) struct Batch(Vec<(Option<Client>, Outcome)>);

impl Batch {
    /// Opens connections. The thread ends up in a namespace of one of them.
    pub(super) fn open(attempts: &[Attempt]) -> Result<Self> {
        let mut order: Vec<_> = (0..attempts.len()).collect();
        order.sort_by_key(|number| &attempts[*number].netns);
        let mut clients: Vec<_> = attempts.iter().map(|_| (None, Outcome::Silence)).collect();
        let mut here = "";
        for number in order {
            let Attempt { netns, protocol, from, to } = &attempts[number];
            if here != netns {
                netns::enter(netns)?;
                here = netns;
            }
            clients[number] = match Client::open(*protocol, *from, *to) {
                Ok(client) => (Some(client), Outcome::Silence),
                Err(error) => (None, Outcome::Refused(error.to_string())),
            };
        }
        Ok(Self(clients))
    }

    /// Waits until it is known of each what became of it, for at most `patience`.
    pub(super) fn wait(&mut self, drops: &Drops, patience: Duration) -> Result<()> {
        let start = Instant::now();
        let mut asked = start;
        loop {
            let mut waiting = 0;
            let again = asked.elapsed() > AGAIN;
            for (client, outcome) in &mut self.0 {
                let (Some(client), Outcome::Silence) = (client, &outcome) else { continue };
                *outcome = heard(client, drops);
                if *outcome == Outcome::Silence {
                    waiting += 1;
                    if again {
                        client.ask().context("asking again")?;
                    }
                }
            }
            if waiting == 0 || start.elapsed() > patience {
                return Ok(());
            }
            if again {
                asked = Instant::now();
            }
            thread::sleep(TICK);
        }
    }

    /// Looks once more: what was dropped must not be answered either.
    pub(super) fn outcomes(&mut self) -> Vec<Outcome> {
        let look = |(client, outcome): &mut (Option<Client>, Outcome)| {
            if let (Some(client), Outcome::Dropped(why)) = (client, &outcome)
                && let Ok(Some(name)) = client.answer()
            {
                *outcome = Outcome::Answer(format!("{name}, though it was dropped: {why}"));
            }
            outcome.clone()
        };
        self.0.iter_mut().map(look).collect()
    }
}

fn heard(client: &Client, drops: &Drops) -> Outcome {
    match client.answer() {
        Ok(Some(name)) => Outcome::Answer(name),
        Ok(None) => drops.reason(client.protocol, client.local).map_or(Outcome::Silence, Outcome::Dropped),
        Err(error) => Outcome::Refused(error.to_string()),
    }
}
