//! A user-space model of the maps and of the programs that read them, and tests against it.

mod generate;
mod tests;
mod verdict;

use std::collections::BTreeMap;

use self::verdict::{Answer, Verdict};
use super::{Change, Image, MapWriter, Write};

/// What a run of every sample gives: the verdicts, and what each frontend answers with.
type Behaviour = (Vec<Verdict>, BTreeMap<crate::datapath::Frontend, Answer>);

/// How the model's maps fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fault {
    None,
    /// The element of this number is refused, all others are written.
    Once(usize),
    /// From the element of this number on nothing is written: the agent is dead.
    Dead(usize),
}

/// Called after each element, with the maps and what was written.
type Watch<'a> = Box<dyn FnMut(&Image, &Write) + 'a>;

/// Maps that can fail at any element, watched after each one.
struct Model<'a> {
    image: Image,
    fault: Fault,
    written: usize,
    watch: Watch<'a>,
}

#[derive(Debug, thiserror::Error)]
#[error("injected")]
struct Injected;

impl<'a> Model<'a> {
    fn new(image: Image) -> Self {
        Self { image, fault: Fault::None, written: 0, watch: Box::new(|_, _| {}) }
    }

    fn failing(image: Image, fault: Fault) -> Self {
        Self { fault, ..Self::new(image) }
    }

    fn watched(image: Image, watch: impl FnMut(&Image, &Write) + 'a) -> Self {
        Self { watch: Box::new(watch), ..Self::new(image) }
    }
}

impl MapWriter for Model<'_> {
    type Error = Injected;

    fn write(&mut self, write: &Write) -> Result<(), Injected> {
        for element in elements(write) {
            let number = self.written;
            self.written += 1;
            match self.fault {
                Fault::Once(at) if at == number => return Err(Injected),
                Fault::Dead(at) if at <= number => return Err(Injected),
                _ => {}
            }
            self.image.apply(&element);
            (self.watch)(&self.image, &element);
        }
        Ok(())
    }

    fn wait_for_readers(&mut self) {}
}

/// A write taken apart into writes of one element.
fn elements(write: &Write) -> Vec<Write> {
    fn each<K: Copy, V: Copy>(change: &Change<K, V>, wrap: impl Fn(Change<K, V>) -> Write) -> Vec<Write> {
        match change {
            Change::Put(elements) => {
                elements.iter().map(|element| wrap(Change::Put(vec![*element]))).collect()
            }
            Change::Delete(keys) => keys.iter().map(|key| wrap(Change::Delete(vec![*key]))).collect(),
        }
    }
    match write {
        Write::Vectors(all) => all.iter().map(|element| Write::Vectors(vec![*element])).collect(),
        Write::Ports(all) => all.iter().map(|element| Write::Ports(vec![*element])).collect(),
        Write::Rules(all) => all.iter().map(|element| Write::Rules(vec![*element])).collect(),
        Write::RuleSets(all) => all.iter().map(|element| Write::RuleSets(vec![*element])).collect(),
        Write::Rings(family, all) => {
            all.iter().map(|element| Write::Rings(*family, vec![element.clone()])).collect()
        }
        Write::Peers(change) => each(change, Write::Peers),
        Write::Identities(change) => each(change, Write::Identities),
        Write::Endpoints(change) => each(change, Write::Endpoints),
        Write::Frontends(change) => each(change, Write::Frontends),
        Write::Members(change) => each(change, Write::Members),
        Write::Sources(change) => each(change, Write::Sources),
        Write::State(state) => vec![Write::State(*state)],
    }
}
