//! Maps: what a commit writes, what a restarted agent adopts, what is refused.

use std::path::Path;

use weir_common::reason::{HOOKS, REASONS};

use super::*;
use crate::kernel::{KernelError, maps::Maps};

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
