//! The maps of one family: elements as they lie in the kernel.

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    sync::Arc,
};

use ipnet::IpNet;
use weir_common::{
    addr::{Addr, Be16, V4, V6},
    endpoint::Endpoint,
    plain::{Plain, bytes_of, from_bytes},
    policy::Identity,
    service::{Backend, FrontendKey, MemberKey, Ring, SOURCE_PREFIX, Service, SourceKey},
};

use super::{KernelError, load::open, map::Map, pins::Pins, sys::Prefix};
use crate::{
    datapath,
    plan::{Change, Family, Image, Write},
    processors::on_all_processors,
};

/// An address type of the maps.
pub(super) trait Ip: Addr {
    /// Its family.
    const FAMILY: Family;

    /// The address, when it is of this family.
    fn of(address: IpAddr) -> Option<Self>;

    /// The address for everybody else.
    fn address(self) -> IpAddr;
}

impl Ip for V4 {
    const FAMILY: Family = Family::V4;

    fn of(address: IpAddr) -> Option<Self> {
        match address {
            IpAddr::V4(address) => Some(Self::from_octets(address.octets())),
            IpAddr::V6(_) => None,
        }
    }

    fn address(self) -> IpAddr {
        Ipv4Addr::from(self.octets()).into()
    }
}

impl Ip for V6 {
    const FAMILY: Family = Family::V6;

    fn of(address: IpAddr) -> Option<Self> {
        match address {
            IpAddr::V6(address) => Some(Self::from_octets(address.octets())),
            IpAddr::V4(_) => None,
        }
    }

    fn address(self) -> IpAddr {
        Ipv6Addr::from(self.octets()).into()
    }
}

/// The maps of one family that commits write.
#[derive(Debug)]
pub(super) struct FamilyMaps<A> {
    endpoints: Map<A, Endpoint>,
    identities: Map<Prefix<A>, Identity>,
    frontends: Map<FrontendKey<A>, Service>,
    rings: Map<u32, Backend<A>>,
    members: Map<MemberKey<A>, u32>,
    sources: Map<Prefix<SourceKey<A>>, u32>,
    inside: Map<Prefix<A>, u32>,
}

impl<A: Ip> FamilyMaps<A>
where
    Prefix<A>: Plain,
    FrontendKey<A>: Plain,
    Backend<A>: Plain,
    MemberKey<A>: Plain,
    Prefix<SourceKey<A>>: Plain,
{
    pub(super) fn open(pins: &Pins) -> Result<Self, KernelError> {
        let [endpoints, identities, frontends, rings, members, sources] = Self::names();
        Ok(Self {
            endpoints: typed(pins, endpoints)?,
            identities: typed(pins, identities)?,
            frontends: typed(pins, frontends)?,
            rings: typed(pins, rings)?,
            members: typed(pins, members)?,
            sources: typed(pins, sources)?,
            inside: typed(pins, Self::INSIDE)?,
        })
    }

    /// Adds what the maps hold to `image`.
    pub(super) fn read(&self, image: &mut Image) -> Result<(), KernelError> {
        let [endpoints, identities, frontends, rings, members, sources] = Self::names();
        let all = self.endpoints.entries().map_err(failed(endpoints))?;
        image.endpoints.extend(all.into_iter().map(|(address, endpoint)| (address.address(), endpoint)));
        let all = self.identities.entries().map_err(failed(identities))?;
        image.identities.extend(all.into_iter().filter_map(|(prefix, identity)| {
            let net = IpNet::new(prefix.address.address(), prefix.length as u8).ok()?;
            Some((net.trunc(), identity))
        }));
        let all = self.frontends.entries().map_err(failed(frontends))?;
        image.frontends.extend(all.into_iter().map(|(key, service)| (frontend(&key), service)));
        let elements = self.rings.elements().map_err(failed(rings))?;
        let named = image.frontends.iter().filter(|(key, _)| Family::of(key.address) == A::FAMILY);
        for ring in named.flat_map(|(_, service)| [service.internal, service.external]) {
            if let Some(content) = ring_at(&elements, ring) {
                image.rings.get_mut(A::FAMILY).insert(ring.offset, Arc::new(content));
            }
        }
        let all = self.members.entries().map_err(failed(members))?;
        image.members.extend(all.into_iter().map(|(key, bits)| ((key.service, backend(&key.backend)), bits)));
        let all = self.sources.entries().map_err(failed(sources))?;
        image.sources.extend(all.into_iter().filter_map(|(prefix, _)| Some((source(&prefix)?, ()))));
        Ok(())
    }

    /// Does that part of a write that is of this family.
    pub(super) fn write(&self, write: &Write) -> std::io::Result<()> {
        match write {
            Write::Endpoints(change) => apply(&self.endpoints, change, A::of, |endpoint| *endpoint),
            Write::Identities(change) => apply(&self.identities, change, prefix_of, |identity| *identity),
            Write::Frontends(change) => apply(&self.frontends, change, frontend_of, |service| *service),
            Write::Members(change) => apply(&self.members, change, member_of, |bits| *bits),
            Write::Sources(change) => apply(&self.sources, change, source_of, |()| 1),
            Write::Rings(family, rings) if *family == A::FAMILY => {
                // A few at a time: all of them are much memory. In any order: nothing refers to them yet.
                let some: Vec<_> = rings.chunks(256).collect();
                let put = |rings: &&[(u32, Arc<datapath::Ring>)]| {
                    let elements = rings.iter().flat_map(|(offset, ring)| (*offset..).zip(elements_of(ring)));
                    self.rings.put(&elements.collect::<Vec<_>>())
                };
                on_all_processors(&some, put).into_iter().collect()
            }
            _ => Ok(()),
        }
    }

    /// Adds those of `inside` that are not in the map, or there as somebody else's.
    pub(super) fn add_inside(&self, inside: &BTreeMap<IpNet, u32>) -> Result<(), KernelError> {
        let known = self.known_inside()?;
        let wanted = inside.iter().filter(|(net, whose)| known.get(*net) != Some(*whose));
        let elements: Vec<_> = wanted.filter_map(|(net, whose)| Some((prefix_of(*net)?, *whose))).collect();
        self.inside.put(&elements).map_err(failed(Self::INSIDE))
    }

    /// Removes from the map what is not in `inside`.
    pub(super) fn keep_inside(&self, inside: &BTreeMap<IpNet, u32>) -> Result<(), KernelError> {
        let known = self.known_inside()?;
        let stale = known.keys().filter(|net| !inside.contains_key(*net));
        let stale: Vec<_> = stale.filter_map(|net| prefix_of(*net)).collect();
        self.inside.delete(&stale).map_err(failed(Self::INSIDE))
    }

    fn known_inside(&self) -> Result<BTreeMap<IpNet, u32>, KernelError> {
        let all = self.inside.entries().map_err(failed(Self::INSIDE))?;
        let net = |prefix: Prefix<A>| IpNet::new(prefix.address.address(), prefix.length as u8).ok();
        Ok(all.into_iter().filter_map(|(prefix, whose)| Some((net(prefix)?, whose))).collect())
    }

    /// The name of the map of the cluster's own addresses.
    const INSIDE: &'static str = match A::FAMILY {
        Family::V4 => "INSIDE_V4",
        Family::V6 => "INSIDE_V6",
    };

    const fn names() -> [&'static str; 6] {
        match A::FAMILY {
            Family::V4 => [
                "ENDPOINTS_V4",
                "IDENTITIES_V4",
                "FRONTENDS_V4",
                "RINGS_V4",
                "MEMBERS_V4",
                "SOURCE_RANGES_V4",
            ],
            Family::V6 => [
                "ENDPOINTS_V6",
                "IDENTITIES_V6",
                "FRONTENDS_V6",
                "RINGS_V6",
                "MEMBERS_V6",
                "SOURCE_RANGES_V6",
            ],
        }
    }
}

/// Opens a pinned map whose types are known.
pub(super) fn typed<K: Plain, V: Plain>(pins: &Pins, name: &'static str) -> Result<Map<K, V>, KernelError> {
    Map::new(open(pins, name)?).map_err(failed(name))
}

pub(super) fn failed(map: &'static str) -> impl Fn(std::io::Error) -> KernelError {
    move |error| KernelError::Map { map, error }
}

/// Applies a change as far as its keys are of the map's family.
fn apply<K: Copy, V, Key: Plain, Value: Plain>(
    map: &Map<Key, Value>,
    change: &Change<K, V>,
    key: impl Fn(K) -> Option<Key>,
    value: impl Fn(&V) -> Value,
) -> std::io::Result<()> {
    match change {
        Change::Put(elements) => {
            let elements = elements.iter().filter_map(|(k, v)| Some((key(*k)?, value(v))));
            map.put(&elements.collect::<Vec<_>>())
        }
        Change::Delete(keys) => map.delete(&keys.iter().filter_map(|k| key(*k)).collect::<Vec<_>>()),
    }
}

fn prefix_of<A: Ip>(net: IpNet) -> Option<Prefix<A>> {
    Some(Prefix { length: u32::from(net.prefix_len()), address: A::of(net.network())? })
}

fn frontend_of<A: Ip>(frontend: datapath::Frontend) -> Option<FrontendKey<A>> {
    let addr = A::of(frontend.address)?;
    Some(FrontendKey { addr, port: Be16::new(frontend.port), protocol: u16::from(frontend.protocol) })
}

fn frontend<A: Ip>(key: &FrontendKey<A>) -> datapath::Frontend {
    datapath::Frontend { address: key.addr.address(), port: key.port.get(), protocol: key.protocol as u8 }
}

fn backend_of<A: Ip>(backend: datapath::Backend) -> Option<Backend<A>> {
    Some(Backend { addr: A::of(backend.address)?, port: Be16::new(backend.port), reserved: 0 })
}

fn backend<A: Ip>(backend: &Backend<A>) -> datapath::Backend {
    datapath::Backend { address: backend.addr.address(), port: backend.port.get() }
}

/// A ring as it lies in the map.
fn elements_of<A: Ip>(ring: &datapath::Ring) -> impl Iterator<Item = Backend<A>>
where
    Backend<A>: Plain,
{
    let mut slots = ring.slots();
    let slots = std::iter::from_fn(move || {
        let some = slots.by_ref().take(Backend::<A>::SLOTS as usize);
        let mut bytes: Vec<u8> = some.flat_map(u16::to_ne_bytes).collect();
        if bytes.is_empty() {
            return None;
        }
        bytes.resize(size_of::<Backend<A>>(), 0);
        from_bytes(&bytes)
    });
    // A backend of the other family has no place in a ring; none gets there from a Service.
    slots.chain(ring.backends().iter().map(|backend| backend_of(*backend).unwrap_or_default()))
}

/// The ring that lies at a place; `None` when it is empty, or not whole.
fn ring_at<A: Ip>(elements: &[Backend<A>], at: Ring) -> Option<datapath::Ring>
where
    Backend<A>: Plain,
{
    let elements = elements.get(at.offset as usize..)?;
    let (slots, backends) = elements.split_at_checked(at.slot_elements::<A>() as usize)?;
    let pair = |pair: &[u8]| u16::from_ne_bytes([pair[0], pair[1]]);
    let slots = slots.iter().flat_map(|element| {
        bytes_of(element).chunks_exact(2).take(Backend::<A>::SLOTS as usize).map(pair).collect::<Vec<_>>()
    });
    let slots: Vec<_> = slots.take(at.len as usize).collect();
    let count = usize::from(*slots.iter().max()?) + 1;
    let backends = backends.get(..count)?.iter().map(backend).collect();
    Some(datapath::Ring::new(backends, &slots))
}

fn member_of<A: Ip>((service, backend): (u32, datapath::Backend)) -> Option<MemberKey<A>> {
    Some(MemberKey { service, backend: backend_of(backend)? })
}

fn source_of<A: Ip>((service, range): (u32, IpNet)) -> Option<Prefix<SourceKey<A>>> {
    let client = A::of(range.network())?;
    let length = SOURCE_PREFIX + u32::from(range.prefix_len());
    Some(Prefix { length, address: SourceKey { service, client } })
}

fn source<A: Ip>(prefix: &Prefix<SourceKey<A>>) -> Option<(u32, IpNet)> {
    let SourceKey { service, client } = prefix.address;
    let length = prefix.length.checked_sub(SOURCE_PREFIX)?;
    Some((service, IpNet::new(client.address(), u8::try_from(length).ok()?).ok()?))
}
