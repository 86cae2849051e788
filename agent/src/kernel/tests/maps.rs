//! Maps: what a commit writes, what a restarted agent adopts, what is refused.

use std::path::Path;

use weir_common::{
    early,
    reason::{HOOKS, REASONS},
    service,
};

use super::*;
use crate::{
    kernel::{KernelError, load, maps::Maps, pins},
    plan::{Change, Family, MapWriter as _, Write},
};

#[test]
fn what_is_committed_is_what_the_maps_hold() {
    in_namespace(|object, options| {
        let mut kernel = Kernel::open(object, options).unwrap();
        assert_eq!(kernel.revision().unwrap(), 0);
        let pod = kernel.attach_pod("pod0").unwrap();
        let report = kernel.commit(&datapath(), &interfaces(pod)).unwrap();
        assert_eq!((report.revision, report.left_over), (1, None));

        let held = Maps::open(&Pins::new(&options.pins)).unwrap().read().unwrap();
        let known = &kernel.layout.as_ref().unwrap().image;
        assert_eq!(held.endpoints, known.endpoints);
        assert_eq!(held.endpoints.len(), 2);
        assert_eq!((&held.identities, &held.peers), (&known.identities, &known.peers));
        assert_eq!((&held.frontends, &held.members), (&known.frontends, &known.members));
        assert_eq!(held.state, known.state);
        assert_eq!(held.vectors[..known.vectors.len()], known.vectors);
        assert_eq!(held.rules[..known.rules.len()], known.rules);
        assert_eq!(held.rings, known.rings);

        assert!(kernel.commit(&datapath(), &interfaces(pod)).unwrap().writes.is_empty());
        let usage = kernel.map_usage().unwrap();
        let endpoints = usage.iter().find(|usage| usage.map == "ENDPOINTS_V4").unwrap();
        assert_eq!((endpoints.entries, endpoints.capacity), (1, 16));
        // A trie has nothing allocated while it is empty.
        assert!(usage.iter().all(|usage| usage.bytes > 0 || usage.entries == 0), "{usage:?}");
        assert_eq!(kernel.drops().unwrap().len(), HOOKS * REASONS);
        assert_eq!(kernel.forwarded().unwrap().len(), HOOKS);
        assert_eq!(kernel.flows().unwrap().iter().count(), 0);
    });
}

#[test]
fn pods_without_an_attached_interface_have_no_endpoint() {
    in_namespace(|object, options| {
        let mut kernel = Kernel::open(object, options).unwrap();
        kernel.commit(&datapath(), &interfaces(1)).unwrap();
        assert!(kernel.layout.as_ref().unwrap().image.endpoints.is_empty());
    });
}

#[test]
fn a_restarted_agent_adopts_the_maps_and_replaces_the_programs() {
    in_namespace(|object, options| {
        let mut first = Kernel::open(object, options).unwrap();
        let pod = first.attach_pod("pod0").unwrap();
        first.commit(&datapath(), &interfaces(pod)).unwrap();
        let old = programs(&first);
        drop(first);
        assert_eq!(attached_programs(options, pod), [old[&Program::FromPod], old[&Program::ToPod]]);

        let larger = Options { sizes: Sizes::default(), ..options.clone() };
        let mut second = Kernel::open(object, &larger).unwrap();
        let new = programs(&second);
        assert_ne!(old[&Program::FromPod], new[&Program::FromPod]);
        assert_eq!(attached_programs(options, pod), [new[&Program::FromPod], new[&Program::ToPod]]);
        assert_eq!(*second.sizes(), small(), "pinned maps keep their sizes");
        assert_eq!(second.revision().unwrap(), 1);
        // Only the epoch: everything else stands already.
        let report = second.commit(&datapath(), &interfaces(pod)).unwrap();
        assert_eq!(report.writes, BTreeMap::from([("STATE", 1)]));
    });
}

#[test]
fn a_second_agent_is_kept_out() {
    in_namespace(|object, options| {
        let _first = Kernel::open(object, options).unwrap();
        let second = Kernel::open(object, options).unwrap_err();
        assert!(matches!(second, KernelError::Locked { .. }), "{second}");
    });
}

#[test]
fn a_pinned_map_of_another_shape_is_refused_and_stays() {
    in_namespace(|object, options| {
        let pins = Pins::new(&options.pins);
        drop(pins.prepare().unwrap());
        let other = sys::MapFd::create(sys::map_type::HASH, 4, 4, 1, 0).unwrap();
        use std::os::fd::AsFd as _;
        sys::object_pin(other.as_fd(), &pins.map("PEERS")).unwrap();
        let error = Kernel::open(object, options).unwrap_err();
        assert!(matches!(error, KernelError::Mismatch { .. }), "{error}");
        assert!(error.to_string().contains("weir detach --all"), "{error}");
        assert!(sys::object_get(&pins.map("PEERS")).is_ok());
        assert!(sys::object_get(&pins.map("STATE")).is_err(), "nothing else was pinned");
    });
}

#[test]
fn more_room_for_waiting_fragments_is_adopted_and_less_is_refused() {
    in_namespace(|object, options| {
        use std::os::fd::AsFd as _;
        let pins = Pins::new(&options.pins);
        drop(pins.prepare().unwrap());
        let pin = |sets| {
            let set = size_of::<early::EarlySet>() as u32;
            let map = sys::MapFd::create(sys::map_type::ARRAY, 4, set, sets, 0).unwrap();
            sys::object_pin(map.as_fd(), &pins.map("EARLY")).unwrap();
        };
        pin(early::SETS / 2);
        let error = Kernel::open(object, options).unwrap_err();
        assert!(matches!(error, KernelError::Mismatch { .. }), "{error}");
        pins::remove(&pins.map("EARLY")).unwrap();

        // As an earlier version had.
        pin(early::SETS * 2);
        Kernel::open(object, options).unwrap();
        assert_eq!(load::open(&pins, "EARLY").unwrap().info().max_entries, early::SETS * 2);
    });
}

#[test]
fn rings_of_an_earlier_version_are_adopted_and_go_when_they_change() {
    in_namespace(|object, options| {
        let mut first = Kernel::open(object, options).unwrap();
        let pod = first.attach_pod("pod0").unwrap();
        let ring = Arc::clone(&datapath().frontends.values().next().unwrap().internal);
        first.commit(&datapath(), &interfaces(pod)).unwrap();
        let mut known = first.layout.as_ref().unwrap().image.frontends.clone();
        drop(first);
        // Its slots took two bytes each.
        let wide = service::Ring { offset: 40, len: ring.len() as u32 };
        let mut maps = Maps::open(&Pins::new(&options.pins)).unwrap();
        known.retain(|frontend, _| frontend.address.is_ipv4());
        let old = |value: &service::Service| service::Service { internal: wide, ..*value };
        let old = known.iter().map(|(frontend, value)| (*frontend, old(value)));
        maps.write(&Write::Rings(Family::V4, vec![(wide, Arc::clone(&ring))])).unwrap();
        maps.write(&Write::Frontends(Change::Put(old.collect()))).unwrap();
        drop(maps);

        let mut second = Kernel::open(object, options).unwrap();
        let report = second.commit(&datapath(), &interfaces(pod)).unwrap();
        assert_eq!(report.writes, BTreeMap::from([("STATE", 1)]), "they are used as they are");
        assert_eq!(second.layout.as_ref().unwrap().image.ring(Family::V4, wide), Some(&ring));
        let usage = second.map_usage().unwrap();
        let used = |map| usage.iter().find(|usage| usage.map == map).unwrap().entries;
        assert_eq!((used("RINGS_V4"), used("RINGS_V6")), (2 + 1, 1 + 1));

        let mut other = datapath();
        for (frontend, service) in datapath().frontends.iter() {
            let longer = Ring::new(service.internal.backends().to_vec(), &[0; 11]);
            let changed = Service { internal: Arc::new(longer), ..(**service).clone() };
            other.frontends.insert(*frontend, Arc::new(changed));
        }
        second.commit(&other, &interfaces(pod)).unwrap();
        second.commit(&datapath(), &interfaces(pod)).unwrap();
        let held = Maps::open(&Pins::new(&options.pins)).unwrap().read().unwrap();
        assert!(held.rings.v4.keys().all(|at| at.width() == 1), "{:?}", held.rings);
    });
}

#[test]
fn what_does_not_fit_is_refused_and_nothing_is_written() {
    in_namespace(|object, options| {
        let mut kernel = Kernel::open(object, options).unwrap();
        let pod = kernel.attach_pod("pod0").unwrap();
        kernel.commit(&datapath(), &interfaces(pod)).unwrap();
        let mut large = datapath();
        for host in 0..70_u8 {
            large.identities.insert(format!("10.1.0.{host}/32").parse().unwrap(), 18_u32);
        }
        assert!(matches!(kernel.check(&large), Err(KernelError::TooLarge(_))));
        let error = kernel.commit(&large, &interfaces(pod)).unwrap_err().to_string();
        assert!(error.starts_with("IDENTITIES_V4 holds 64 elements; this change needs 72"), "{error}");
        assert_eq!(kernel.revision().unwrap(), 1);
        assert!(kernel.commit(&datapath(), &interfaces(pod)).unwrap().writes.is_empty());
    });
}

#[test]
fn a_first_start_that_fails_leaves_nothing() {
    in_namespace(|_, options| {
        for object in [&[][..], &[0x7f, b'E', b'L', b'F']] {
            let error = Kernel::open(object, options).unwrap_err();
            assert!(matches!(error, KernelError::Load { .. }), "{error}");
            assert!(!options.pins.exists());
        }
    });
}

#[test]
fn pins_off_a_bpf_file_system_are_refused() {
    let error = Pins::new(Path::new("/tmp/weir-no-bpffs")).prepare().unwrap_err();
    assert!(error.to_string().contains("mount -t bpf"), "{error}");
    assert!(!Path::new("/tmp/weir-no-bpffs").exists());
}
